//! What `hw2 bench wire` tells of its rounds.

use std::time::Duration;

use hw2_common::address::Address;
use hw2_common::config::WireFormat;
use serde::Serialize;

use super::Measured;
use crate::output::{Column, Report, Table, count};

#[derive(Debug, Serialize)]
pub(super) struct Wire {
    /// Parameters pushed, and pulled, by each worker in each round.
    pub(super) values: usize,
    pub(super) rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// unix or tcp.
    transport: &'static str,
    /// f32 or bf16.
    wire: String,
    workers: u16,
    /// Servers.
    shards: usize,
    /// Of each round, and in its time.
    compute_ms: f64,
    /// Of all workers, without those of the start.
    rounds: usize,
    /// Their median.
    ms_per_round: f64,
    p10_ms: f64,
    p90_ms: f64,
    /// Of plain sockets that carry as many bytes for as many clients, and do nothing else.
    raw_ms: f64,
    ratio_to_raw: f64,
    /// Both ways, of all workers.
    #[serde(rename = "GB_per_s")]
    gb_per_s: f64,
    /// Of all threads of the first server, for a round; none if that ended too soon to tell.
    server_cpu_ms: Option<f64>,
    /// Of the first server, evaluations and checkpoints included.
    server_peak_mib: u64,
}

impl Row {
    /// Of rounds in which each worker pushes, and pulls, so many bytes.
    pub(super) fn new(
        (workers, wire, compute_ms): (u16, WireFormat, f64),
        bytes: usize,
        measured: Measured,
        raw: Duration,
    ) -> Self {
        let Measured { addresses, mut rounds, server } = measured;
        rounds.sort();
        let at = |part: f64| match rounds.len() {
            0 => f64::NAN,
            len => rounds[((len - 1) as f64 * part).round() as usize].as_secs_f64() * 1e3,
        };
        let all_bytes = 2 * usize::from(workers) * bytes;
        let raw_ms = raw.as_secs_f64() * 1e3;
        Self {
            transport: match addresses.coordinator() {
                Address::Tcp(_) => "tcp",
                Address::Unix(_) => "unix",
            },
            wire: wire.to_string(),
            raw_ms,
            ratio_to_raw: at(0.5) / raw_ms,
            workers,
            shards: addresses.all().len(),
            compute_ms,
            rounds: rounds.len(),
            ms_per_round: at(0.5),
            p10_ms: at(0.1),
            p90_ms: at(0.9),
            gb_per_s: all_bytes as f64 / 1e9 / (at(0.5) / 1e3),
            server_cpu_ms: server.cpu_ms(),
            server_peak_mib: server.peak_memory_bytes >> 20,
        }
    }
}

impl Report for Wire {
    fn text(&self) -> String {
        let columns = [
            "socket",
            "wire",
            "workers",
            "shards",
            "rounds",
            "median ms",
            "10 %",
            "90 %",
            "GB/s",
            "raw ms",
            "ratio",
            "server CPU ms",
            "MiB",
        ];
        let mut table = Table::new(columns.map(Column::Right));
        for row in &self.rows {
            table.row([
                row.transport.to_owned(),
                row.wire.clone(),
                row.workers.to_string(),
                row.shards.to_string(),
                count(row.rounds as u64),
                format!("{:.1}", row.ms_per_round),
                format!("{:.1}", row.p10_ms),
                format!("{:.1}", row.p90_ms),
                format!("{:.2}", row.gb_per_s),
                format!("{:.1}", row.raw_ms),
                format!("{:.2}", row.ratio_to_raw),
                row.server_cpu_ms.map_or("-".into(), |ms| format!("{ms:.1}")),
                count(row.server_peak_mib),
            ]);
        }
        let values = count(self.values as u64);
        let compute = self.rows.first().map_or(0.0, |row| row.compute_ms);
        let beside = match compute > 0.0 {
            true => format!(" beside {compute} ms of computing, which its times include"),
            false => String::new(),
        };
        format!(
            "push, commit and pull of {values} values{beside}; raw: plain sockets with as many \
             bytes\n{table}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::ServerUse;
    use super::*;

    #[test]
    fn the_median_and_the_rate_belong_together() {
        let measured = Measured {
            addresses: "unix:/a.sock,unix:/b.sock".parse().unwrap(),
            rounds: (1..=11).map(Duration::from_millis).collect(),
            server: ServerUse {
                first: Some((2, 10)),
                last: (4, 17),
                writing: 0,
                peak_memory_bytes: 5 << 20,
            },
        };
        let raw = Duration::from_millis(3);
        let row = Row::new((2, WireFormat::F32, 0.0), 4_000_000, measured, raw);
        assert_eq!(row.shards, 2);
        assert_eq!((row.transport, row.raw_ms, row.ratio_to_raw), ("unix", 3.0, 2.0));
        assert_eq!((row.p10_ms, row.ms_per_round, row.p90_ms), (2.0, 6.0, 10.0));
        assert_eq!((row.gb_per_s * 1e3).round(), 2667.0);
        assert_eq!((row.server_cpu_ms, row.server_peak_mib), (Some(3.5), 5));
    }
}

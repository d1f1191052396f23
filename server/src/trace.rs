//! The trace of a server's life: one file for it, its workers and its followers, as Perfetto and
//! Chrome read it.
//!
//! The format is the "Trace Event Format" of the Chromium project: complete events (`X`) and names
//! (`M`), times in microseconds.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use hw2_common::ids::WorkerId;
use hw2_common::shard::Shard;
use hw2_common::trace::{self, Span};
use serde_json::{Value, json};

/// Time between two looks at what this process has recorded.
const INTERVAL: Duration = Duration::from_millis(500);

/// A trace that is being written, by a thread of its own.
#[derive(Debug)]
pub(crate) struct TraceFile {
    writer: TraceWriter,
    thread: JoinHandle<()>,
}

/// Takes what others have recorded. Clones lead to the same file, which ends after the last one.
#[derive(Clone, Debug)]
pub(crate) struct TraceWriter(Sender<Recorded>);

struct Recorded {
    by: Process,
    name: String,
    spans: Vec<Span>,
}

/// Who did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Process {
    Server(Shard),
    Worker(WorkerId),
}

impl Process {
    /// In the file of a run on so many `servers`, which come first.
    fn number(self, servers: usize) -> u64 {
        match self {
            Self::Server(shard) => shard.index as u64,
            Self::Worker(worker) => servers as u64 + worker.0,
        }
    }
}

impl TraceFile {
    /// A file in which a trace can begin. What is in it stays until one does: that may be another
    /// server's.
    ///
    /// # Errors
    /// There can be no such file.
    pub(crate) fn open(path: &Path) -> io::Result<File> {
        File::options().create(true).truncate(false).write(true).open(path)
    }

    /// Begins a trace of a run on so many `servers` in `file`.
    ///
    /// # Errors
    /// It cannot be written, or the system has no thread left.
    pub(crate) fn begin(file: File, servers: usize) -> io::Result<Self> {
        file.set_len(0)?;
        let mut events = Events::new(BufWriter::new(file), servers)?;
        trace::begin();
        let (writer, recorded) = channel();
        let thread = std::thread::Builder::new().name("hw2-trace".into()).spawn(move || {
            if let Err(error) = write_all(&mut events, &recorded) {
                tracing::error!("the trace ends here: {error}");
            }
        })?;
        Ok(Self { writer: TraceWriter(writer), thread })
    }

    /// A way to the file.
    pub(crate) fn writer(&self) -> TraceWriter {
        self.writer.clone()
    }

    /// Waits until everything is in the file; every other writer must have gone.
    pub(crate) fn finish(self) {
        drop(self.writer);
        // A panic has been printed where it happened.
        let _ = self.thread.join();
    }
}

impl TraceWriter {
    /// A process, whose name is for people, did this.
    pub(crate) fn add(&self, by: Process, name: String, spans: Vec<Span>) {
        // A file that can be written no more has said so.
        let _ = self.0.send(Recorded { by, name, spans });
    }
}

fn write_all(events: &mut Events<impl Write>, recorded: &Receiver<Recorded>) -> io::Result<()> {
    let own = Process::Server(Shard { index: 0, count: events.servers });
    loop {
        let more = recorded.recv_timeout(INTERVAL);
        events.add(own, "ps-server", trace::take())?;
        match more {
            Ok(Recorded { by, name, spans }) => events.add(by, &name, spans)?,
            Err(RecvTimeoutError::Timeout) => events.file.flush()?,
            Err(RecvTimeoutError::Disconnected) => return events.end(),
        }
    }
}

/// An array of events.
struct Events<W> {
    file: W,
    servers: usize,
    /// The numbers of the tracks of each process, by their names.
    tracks: HashMap<Process, HashMap<String, usize>>,
    is_empty: bool,
}

impl<W: Write> Events<W> {
    fn new(mut file: W, servers: usize) -> io::Result<Self> {
        file.write_all(b"[")?;
        Ok(Self { file, servers, tracks: HashMap::new(), is_empty: true })
    }

    fn add(&mut self, by: Process, name: &str, spans: Vec<Span>) -> io::Result<()> {
        if spans.is_empty() {
            return Ok(());
        }
        let process = by.number(self.servers);
        if !self.tracks.contains_key(&by) {
            self.name("process_name", process, 0, name)?;
            self.tracks.insert(by, HashMap::new());
        }
        for Span { track, name, start, end, step } in spans {
            let tracks = self.tracks.entry(by).or_default();
            let (next, known) = (tracks.len() + 1, tracks.get(&track).copied());
            let number = match known {
                Some(number) => number,
                None => {
                    tracks.insert(track.clone(), next);
                    self.name("thread_name", process, next, &track)?;
                    next
                }
            };
            let us = |time: Duration| time.as_nanos() as f64 / 1e3;
            let dur = us(end.saturating_sub(start));
            let args = step.map_or(json!({}), |step| json!({ "step": step.0 }));
            self.event(&json!({
                "ph": "X", "name": name, "ts": us(start), "dur": dur,
                "pid": process, "tid": number, "args": args,
            }))?;
        }
        Ok(())
    }

    fn name(&mut self, what: &str, process: u64, track: usize, name: &str) -> io::Result<()> {
        let args = json!({ "name": name });
        self.event(&json!({ "ph": "M", "name": what, "pid": process, "tid": track, "args": args }))
    }

    fn event(&mut self, event: &Value) -> io::Result<()> {
        let separator: &[u8] = if self.is_empty { b"\n" } else { b",\n" };
        self.is_empty = false;
        self.file.write_all(separator)?;
        Ok(serde_json::to_writer(&mut self.file, event)?)
    }

    fn end(&mut self) -> io::Result<()> {
        self.file.write_all(b"\n]\n")?;
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use hw2_common::ids::GlobalStep;

    use super::*;

    #[test]
    fn every_process_and_track_is_named_once() {
        let span = |track: &str, start| Span {
            track: track.into(),
            name: "a \"name\"".into(),
            start: Duration::from_micros(start),
            end: Duration::from_micros(start + 5),
            step: (start > 10).then_some(GlobalStep(7)),
        };
        let mut file = Vec::new();
        let mut events = Events::new(&mut file, 2).unwrap();
        let server = Process::Server(Shard { index: 1, count: 2 });
        let worker = Process::Worker(WorkerId(1));
        events.add(server, "server", Vec::new()).unwrap();
        events.add(worker, "worker 1", vec![span("compute", 10), span("push", 12)]).unwrap();
        events.add(worker, "worker 1", vec![span("compute", 20)]).unwrap();
        events.add(server, "server", vec![span("sum", 30)]).unwrap();
        events.end().unwrap();
        let events: Vec<Value> = serde_json::from_slice(&file).unwrap();
        let names: Vec<&str> = events.iter().map(|event| event["name"].as_str().unwrap()).collect();
        let (process, track, span) = ("process_name", "thread_name", "a \"name\"");
        assert_eq!(names, [process, track, span, track, span, span, process, track, span]);
        let last = json!({
            "ph": "X", "name": span, "ts": 20.0, "dur": 5.0, "pid": 3, "tid": 1,
            "args": { "step": 7 },
        });
        assert_eq!(events[5], last);
        assert_eq!(events[2]["args"], json!({}));
        assert_eq!(events[8]["pid"], 1);
    }
}

//! `--trace`: one file for the servers and their workers, on one clock.

use std::collections::HashMap;

use serde_json::Value;

use crate::common::{Job, TINY, hw2};

/// Of two processes on one machine the clocks are off by less.
const CLOCK_ERROR_MS: f64 = 50.0;
const STEPS: usize = 12;

struct Trace(Vec<Span>);

struct Span {
    process: String,
    track: String,
    name: String,
    step: Option<u64>,
    began_ms: f64,
    ended_ms: f64,
}

impl Trace {
    fn read(json: &str) -> Self {
        let events: Vec<Value> = serde_json::from_str(json).unwrap();
        let (mut names, mut spans) = (HashMap::new(), Vec::new());
        for event in &events {
            let id = |key: &str| event[key].as_u64().unwrap();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let name = text(&event["name"]);
            if event["ph"] == "M" {
                names.insert((name, id("pid"), id("tid")), text(&event["args"]["name"]));
                continue;
            }
            let name_of = |kind: &str, track| names[&(kind.to_owned(), id("pid"), track)].clone();
            let ms = |key: &str| event[key].as_f64().unwrap() / 1e3;
            spans.push(Span {
                process: name_of("process_name", 0),
                track: name_of("thread_name", id("tid")),
                name,
                step: event["args"]["step"].as_u64(),
                began_ms: ms("ts"),
                ended_ms: ms("ts") + ms("dur"),
            });
        }
        Self(spans)
    }

    /// When the first span began whose names begin so, and the last one ended.
    fn find(&self, process: &str, track: &str, step: usize, name: &str) -> Option<(f64, f64)> {
        let fits = |span: &&Span| {
            span.process.starts_with(process)
                && span.track.starts_with(track)
                && span.name.starts_with(name)
                && span.step == Some(step as u64)
        };
        let spans: Vec<&Span> = self.0.iter().filter(fits).collect();
        let first = spans.iter().map(|span| span.began_ms).reduce(f64::min)?;
        let last = spans.iter().map(|span| span.ended_ms).reduce(f64::max)?;
        Some((first, last))
    }
}

/// Of a run of a dense layer that is a bucket of its own.
fn traced(options: &[&str]) -> Trace {
    let job = Job::new();
    std::fs::write(job.config(), TINY.replace("units = 16", "units = 256")).unwrap();
    let path = |name: &str| job.dir().join(name).display().to_string();
    let (config, data, out, file) =
        (path("job.toml"), path("data"), path("run"), path("trace.json"));
    let steps = STEPS.to_string();
    let fixed = [
        "train", "--config", &config, "--data", &data, "--out", &out, "--trace", &file, "--steps",
        &steps, "--device", "cpu",
    ];
    let ended = hw2(fixed.iter().chain(options));
    assert_eq!(ended.code, Some(0), "{ended}");
    Trace::read(&std::fs::read_to_string(&file).unwrap())
}

#[test]
fn a_gradient_travels_while_backward_goes_on() {
    let trace = traced(&["--replicas", "1"]);
    let mut early = 0;
    for step in 0..STEPS {
        let find = |process, track, name| {
            let found = trace.find(process, track, step, name);
            found.unwrap_or_else(|| panic!("no {name} of step {step} on {track} of {process}"))
        };
        let (_, received) = find("ps-server", "from worker", "push dense1, softmax_linear");
        let (sent, _) = find("worker", "push", "push dense1, softmax_linear");
        let (began, computed) = find("worker", "compute", "backward");
        find("worker", "compute", "forward conv_stack1");
        find("ps-server", "hw2-sum", "update");
        assert!(began <= sent && sent <= received + CLOCK_ERROR_MS, "step {step}");
        early += usize::from(received < computed);
    }
    // On a machine that is busy one or the other may come late.
    assert!(
        2 * early > STEPS,
        "dense1 was there before backward ended in {early} of {STEPS} steps"
    );
}

#[test]
fn all_servers_of_a_run_are_in_one_trace() {
    let trace = traced(&["--replicas", "2", "--workers", "2", "--shards", "2"]);
    for step in 0..STEPS {
        let find = |process, track, name| {
            let found = trace.find(process, track, step, name);
            found.unwrap_or_else(|| panic!("no {name} of step {step} on {track} of {process}"))
        };
        let (sent, _) = find("worker", "push, shard 1/2", "push");
        let (_, received) = find("ps-server, shard 1/2", "from worker", "push");
        assert!(sent <= received + CLOCK_ERROR_MS, "step {step}");
        let (updated, _) = find("ps-server, shard 1/2", "hw2-sum", "update");
        if step > 0 {
            let (_, pulled) = find("worker", "pull, shard 1/2", "pull");
            let before = trace.find("ps-server, shard 1/2", "hw2-sum", step - 1, "update");
            assert!(before.unwrap().0 <= pulled + CLOCK_ERROR_MS, "step {step}");
        }
        assert!(sent <= updated + CLOCK_ERROR_MS, "step {step}");
    }
}

#[test]
fn a_trace_that_cannot_be_written_is_named_before_anything_begins() {
    let job = Job::new();
    let path = |name: &str| job.dir().join(name).display().to_string();
    let (config, data, out) = (path("job.toml"), path("data"), path("run"));
    let ended = hw2([
        "server",
        "--config",
        &config,
        "--data",
        &data,
        "--run-dir",
        &out,
        "--listen",
        &format!("unix:{}", path("socket")),
        "--trace",
        "/nonexistent/trace.json",
    ]);
    assert!(ended.code.is_some_and(|code| code != 0), "{ended}");
    assert!(ended.stderr.contains("/nonexistent/trace.json"), "{ended}");
    assert!(!job.dir().join("run").exists());
}

//! `--trace`: one file for the server and its workers, on one clock.

use std::collections::HashMap;

use serde_json::Value;

use crate::common::{Job, TINY, hw2};

/// Of two processes on one machine the clocks are off by less.
const CLOCK_ERROR_MS: f64 = 50.0;
const STEPS: usize = 12;

/// The spans of a trace by process, track and step, with when each began and ended.
struct Trace(HashMap<(String, String, Option<u64>), Vec<(String, f64, f64)>>);

impl Trace {
    fn read(json: &str) -> Self {
        let events: Vec<Value> = serde_json::from_str(json).unwrap();
        let mut names = HashMap::new();
        let mut spans = HashMap::<_, Vec<_>>::new();
        for event in &events {
            let id = |key: &str| event[key].as_u64().unwrap();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let name = text(&event["name"]);
            if event["ph"] == "M" {
                names.insert((name, id("pid"), id("tid")), text(&event["args"]["name"]));
                continue;
            }
            let name_of = |kind: &str, track| names[&(kind.to_owned(), id("pid"), track)].clone();
            let (process, track) = (name_of("process_name", 0), name_of("thread_name", id("tid")));
            let ms = |key: &str| event[key].as_f64().unwrap() / 1e3;
            let step = event["args"]["step"].as_u64();
            let span = (name, ms("ts"), ms("ts") + ms("dur"));
            spans.entry((process, track, step)).or_default().push(span);
        }
        Self(spans)
    }

    /// When the first span began that is called so, and the last one ended.
    fn find(&self, process: &str, track: &str, step: usize, name: &str) -> Option<(f64, f64)> {
        let found = |((of, on, at), spans): (&(String, String, Option<u64>), &'_ Vec<_>)| {
            let fits = of.starts_with(process) && on.starts_with(track) && *at == Some(step as u64);
            let named = |(other, ..): &&(String, f64, f64)| other.starts_with(name);
            fits.then(|| spans.iter().filter(named).cloned().collect::<Vec<_>>())
        };
        let spans: Vec<_> = self.0.iter().filter_map(found).flatten().collect();
        let first = spans.iter().map(|(_, began, _)| *began).reduce(f64::min)?;
        let last = spans.iter().map(|(_, _, ended)| *ended).reduce(f64::max)?;
        Some((first, last))
    }
}

#[test]
fn a_gradient_travels_while_backward_goes_on() {
    let job = Job::new();
    // A dense layer that is a bucket of its own.
    std::fs::write(job.config(), TINY.replace("units = 16", "units = 256")).unwrap();
    let path = |name: &str| job.dir().join(name).display().to_string();
    let (config, data, out, file) =
        (path("job.toml"), path("data"), path("run"), path("trace.json"));
    let steps = STEPS.to_string();
    let ended = hw2([
        "train",
        "--config",
        &config,
        "--data",
        &data,
        "--out",
        &out,
        "--trace",
        &file,
        "--steps",
        &steps,
        "--replicas",
        "1",
        "--device",
        "cpu",
    ]);
    assert_eq!(ended.code, Some(0), "{ended}");
    let trace = Trace::read(&std::fs::read_to_string(&file).unwrap());
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

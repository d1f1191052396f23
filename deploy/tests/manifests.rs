//! The Kubernetes manifests start these binaries: their containers' commands run a whole job, with
//! this machine's paths in place of the cluster's.

use std::path::{Path, PathBuf};

use hw2_common::config::Layers;
use serde_json::Value;

use crate::common::{Job, Process, hw2_command};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/k8s");

/// All objects in the manifests.
fn objects() -> Vec<Value> {
    let mut files: Vec<PathBuf> =
        Path::new(FOLDER).read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let parse = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).unwrap();
        serde_saphyr::from_multiple::<Value>(&text).unwrap()
    };
    files.iter().flat_map(parse).collect()
}

/// Name and command line of every container.
fn containers() -> Vec<(String, Vec<String>)> {
    let containers = |object: &Value| {
        object.pointer("/spec/template/spec/containers").and_then(Value::as_array).cloned()
    };
    let words = |words: &Value| -> Vec<String> {
        words.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let all = objects().iter().filter_map(containers).flatten().collect::<Vec<_>>();
    all.iter()
        .map(|container| {
            let line = [words(&container["command"]), words(&container["args"])].concat();
            (container["name"].as_str().unwrap().to_owned(), line)
        })
        .collect()
}

/// Starts a container's command where `job` lies.
fn start(job: &Job, (name, line): &(String, Vec<String>)) -> Process {
    let run = job.run("run");
    let (config, data) = (job.config(), job.data());
    let places = [
        ("/etc/hw2/job.toml", config.display().to_string()),
        ("/data", data.display().to_string()),
        ("/runs/first", run.dir().display().to_string()),
        ("0.0.0.0:50051", run.address()),
        ("hw2-server:50051", run.address()),
    ];
    assert_eq!(line[0], "hw2");
    let arguments = line[1..].iter().map(|word| {
        let Some((flag, value)) = word.split_once('=') else { return word.clone() };
        let place = places.iter().find(|(place, _)| *place == value);
        format!("{flag}={}", place.map_or(value, |(_, here)| here))
    });
    Process::start(name, hw2_command(arguments), job.dir())
}

#[test]
fn the_server_and_each_kind_of_worker_train_together() {
    let containers = containers();
    let (servers, workers): (Vec<_>, Vec<_>) =
        containers.iter().partition(|(name, _)| name == "server");
    assert_eq!((servers.len(), workers.len()), (1, 1));
    for worker in workers {
        let job = Job::new();
        let (server, worker) = (start(&job, servers[0]), start(&job, worker));
        server.succeed();
        worker.succeed();
        assert_eq!(job.run("run").digest().1, 40);
    }
}

#[test]
fn the_config_map_is_a_valid_config() {
    let job = Job::new();
    let text =
        objects().iter().find_map(|object| object["data"]["job.toml"].as_str().map(str::to_owned));
    let file = job.dir().join("map.toml");
    std::fs::write(&file, text.expect("a ConfigMap holds the job")).unwrap();
    let layers = Layers { file: Some(file), ..Layers::default() };
    let config = layers.load().unwrap_or_else(|error| panic!("{error}")).config;
    assert_eq!((config.replicas, config.batch_size), (4, 128));
}

/// Kubernetes kills what has not ended by then.
#[test]
fn the_server_has_longer_to_end_than_it_takes() {
    let objects = objects();
    let server = objects.iter().find(|object| object["kind"] == "StatefulSet").unwrap();
    let allowed_s = server["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64();
    let takes_ms = Layers::default().load().unwrap().config.cluster.grace_ms;
    assert!(allowed_s.unwrap() * 1000 >= 2 * takes_ms);
}

//! A run on several servers gives the checksum of a run on one.

use nix::sys::signal::Signal;

use crate::common::{Job, Process, Run};

/// The digest of an undisturbed run of `job`, on as many servers and with as many workers.
fn undisturbed(job: &Job, workers: usize) -> String {
    let run = job.run("run");
    let servers = run.servers();
    let workers = run.workers(workers);
    servers.into_iter().for_each(|server| _ = server.succeed());
    workers.into_iter().for_each(|worker| _ = worker.succeed());
    run.digest().0
}

#[test]
fn any_number_of_servers() {
    let expected = undisturbed(&Job::new().wide(), 1);
    for (servers, workers) in [(2, 1), (3, 2), (3, 5)] {
        let digest = undisturbed(&Job::new().wide().on_servers(servers), workers);
        assert_eq!(digest, expected, "{servers} servers, {workers} workers");
    }
}

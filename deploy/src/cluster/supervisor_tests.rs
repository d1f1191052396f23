use hw2_common::child::EXIT_EARLY;

use super::*;

const KILLED: Ending = Ending::Killed(9);
const DONE: Ending = Ending::Exited(0);
const LEFT: Ending = Ending::Exited(EXIT_EARLY as i32);
const REFUSED: Ending = Ending::Exited(1);
const GRACE: Duration = Duration::from_secs(20);
const MOMENT: Duration = Duration::from_secs(1);

/// A supervisor and the clock of its test.
struct Cluster {
    supervisor: Supervisor,
    now: Instant,
}

impl Cluster {
    fn running(workers: usize) -> Self {
        Self::with_followers(0, workers)
    }

    /// With so many followers.
    fn with_followers(followers: usize, workers: usize) -> Self {
        let supervisor = Supervisor::new(followers, workers, GRACE);
        let mut cluster = Self { supervisor, now: Instant::now() };
        assert_eq!(cluster.decide(Event::ServerAnswers).action, Action::StartWorkers);
        cluster
    }

    fn decide(&mut self, event: Event) -> Decision {
        self.supervisor.decide(self.now, event)
    }

    fn ended(&mut self, role: Role, ending: Ending) -> Decision {
        self.decide(Event::Ended(role, ending, MOMENT))
    }

    /// Lets the clock run to the deadline.
    fn wait(&mut self) -> Decision {
        self.now = self.supervisor.deadline().expect("there is one");
        self.decide(Event::DeadlinePassed)
    }

    fn outcome(&self) -> Option<Outcome> {
        self.supervisor.outcome().cloned()
    }
}

fn failed(cluster: &Cluster) -> String {
    match cluster.outcome() {
        Some(Outcome::Failed(reason)) => reason,
        other => panic!("{other:?} is no failure"),
    }
}

#[test]
fn a_run_that_ends_by_itself() {
    let mut cluster = Cluster::running(2);
    assert_eq!(cluster.decide(Event::ServerAnswers).action, Action::Nothing, "started only once");
    cluster.ended(Role::Worker(1), DONE);
    cluster.ended(Role::Server, DONE);
    assert_eq!(cluster.outcome(), None, "worker 0 is still there");
    cluster.ended(Role::Worker(0), DONE);
    assert_eq!(cluster.outcome(), Some(Outcome::Finished));
}

#[test]
fn workers_that_stay_after_the_end_are_asked_and_then_killed() {
    let mut cluster = Cluster::running(1);
    cluster.ended(Role::Server, DONE);
    assert_eq!(cluster.wait().action, Action::StopOthers);
    assert_eq!(cluster.wait().action, Action::KillAll);
    cluster.ended(Role::Worker(0), KILLED);
    assert!(failed(&cluster).contains("did not end in time"));
}

#[test]
fn a_server_that_stays_after_the_end_is_asked_and_then_killed() {
    for ended in [DONE, KILLED] {
        let mut cluster = Cluster::running(1);
        cluster.ended(Role::Worker(0), DONE);
        assert_eq!(cluster.wait().action, Action::DrainServer);
        if ended == KILLED {
            assert_eq!(cluster.wait().action, Action::KillAll);
        }
        cluster.ended(Role::Server, ended);
        match ended {
            DONE => assert_eq!(cluster.outcome(), Some(Outcome::Finished)),
            _ => assert!(failed(&cluster).contains("did not end in time")),
        }
    }
}

#[test]
fn a_killed_worker_starts_again_a_few_times_and_then_no_more() {
    let mut cluster = Cluster::running(2);
    for attempt in 1..=RESTARTS_MAX {
        let decision = cluster.ended(Role::Worker(1), KILLED);
        assert_eq!(
            decision.reason.as_deref(),
            Some("worker-1 was killed by signal 9: starting it again"),
            "attempt {attempt}"
        );
        assert_eq!(cluster.wait().action, Action::Start(Role::Worker(1)));
    }
    let decision = cluster.ended(Role::Worker(1), KILLED);
    assert_eq!(
        decision.reason.as_deref(),
        Some("worker-1 was killed by signal 9: going on without it")
    );
    assert_eq!(cluster.supervisor.deadline(), None);

    cluster.ended(Role::Server, DONE);
    cluster.ended(Role::Worker(0), DONE);
    assert_eq!(cluster.outcome(), Some(Outcome::Finished), "the others did the work");
}

#[test]
fn a_long_life_clears_the_record() {
    let mut cluster = Cluster::running(1);
    for _ in 0..2 * RESTARTS_MAX {
        cluster.decide(Event::Ended(Role::Worker(0), KILLED, CLEAN_RECORD));
        assert_eq!(cluster.wait().action, Action::Start(Role::Worker(0)));
    }
}

#[test]
fn when_every_worker_fails_the_run_fails_with_a_checkpoint() {
    let mut cluster = Cluster::running(1);
    for _ in 0..RESTARTS_MAX {
        cluster.ended(Role::Worker(0), REFUSED);
        cluster.wait();
    }
    assert_eq!(cluster.ended(Role::Worker(0), REFUSED).action, Action::DrainServer);
    cluster.ended(Role::Server, DONE);
    assert_eq!(failed(&cluster), "every worker failed; worker-0 ended with exit code 1 at last");
}

#[test]
fn when_all_workers_are_taken_away_the_server_is_stopped() {
    let mut cluster = Cluster::running(1);
    assert_eq!(cluster.ended(Role::Worker(0), LEFT).action, Action::Nothing);
    assert_eq!(cluster.wait().action, Action::DrainServer);
    cluster.ended(Role::Server, DONE);
    assert_eq!(failed(&cluster), "all workers have left");
}

#[test]
fn a_worker_that_leaves_is_missed_only_while_the_run_goes_on() {
    let mut cluster = Cluster::running(2);
    assert_eq!(cluster.ended(Role::Worker(0), LEFT).reason, None);
    let decision = cluster.wait();
    assert_eq!(decision.reason.as_deref(), Some("worker-0 left: going on without"));
    assert_eq!(cluster.supervisor.deadline(), None);
    cluster.ended(Role::Worker(1), DONE);
    cluster.ended(Role::Server, DONE);
    assert_eq!(cluster.outcome(), Some(Outcome::Finished));
}

#[test]
fn what_a_worker_has_finished_it_need_not_do_again() {
    let mut cluster = Cluster::running(1);
    assert_eq!(cluster.ended(Role::Worker(0), DONE).action, Action::Nothing);
    // Its state is safe: the next server finds that nothing is left to do.
    assert_eq!(cluster.ended(Role::Server, KILLED).action, Action::Start(Role::Server));
    assert_eq!(cluster.decide(Event::ServerAnswers).action, Action::Nothing);
    cluster.ended(Role::Server, DONE);
    assert_eq!(cluster.outcome(), Some(Outcome::Finished));
}

#[test]
fn a_killed_server_starts_again_and_a_server_that_refuses_does_not() {
    let mut cluster = Cluster::running(1);
    for _ in 0..RESTARTS_MAX {
        let decision = cluster.ended(Role::Server, KILLED);
        assert_eq!(decision.action, Action::Start(Role::Server));
        assert!(
            decision.reason.is_some_and(|reason| reason.contains("from its newest checkpoint"))
        );
    }
    assert_eq!(cluster.ended(Role::Server, KILLED).action, Action::StopOthers);
    cluster.ended(Role::Worker(0), DONE);
    assert_eq!(failed(&cluster), "the server was killed by signal 9 again");

    let mut cluster = Cluster { supervisor: Supervisor::new(0, 2, GRACE), now: Instant::now() };
    cluster.ended(Role::Server, REFUSED);
    assert_eq!(failed(&cluster), "the server ended with exit code 1", "no worker was started");
}

#[test]
fn one_interrupt_drains_and_the_second_kills() {
    let mut cluster = Cluster::running(2);
    assert_eq!(cluster.decide(Event::Interrupted).action, Action::DrainServer);
    assert_eq!(cluster.ended(Role::Worker(0), KILLED).action, Action::Nothing, "no restart now");
    assert_eq!(cluster.ended(Role::Server, DONE).action, Action::StopOthers);
    cluster.ended(Role::Worker(1), DONE);
    assert_eq!(cluster.outcome(), Some(Outcome::Interrupted));

    let mut cluster = Cluster::running(1);
    cluster.decide(Event::Interrupted);
    cluster.now += Duration::from_millis(500);
    assert_eq!(cluster.decide(Event::Interrupted).action, Action::Nothing, "the same request");
    cluster.now += Duration::from_millis(500);
    assert_eq!(cluster.decide(Event::Interrupted).action, Action::KillAll);
    cluster.ended(Role::Server, KILLED);
    cluster.ended(Role::Worker(0), KILLED);
    assert!(matches!(cluster.outcome(), Some(Outcome::Failed(_))));
}

#[test]
fn an_interrupt_before_the_server_serves_is_no_failure() {
    let mut cluster = Cluster { supervisor: Supervisor::new(1, 2, GRACE), now: Instant::now() };
    assert_eq!(cluster.decide(Event::Interrupted).action, Action::DrainServer);
    let decision = cluster.ended(Role::Server, Ending::Killed(SIGTERM));
    assert_eq!(decision.action, Action::StopOthers, "it has told nobody");
    cluster.ended(Role::Follower(0), DONE);
    assert_eq!(cluster.outcome(), Some(Outcome::Interrupted));
}

#[test]
fn a_server_that_does_not_drain_in_time_is_killed() {
    let mut cluster = Cluster::running(1);
    let start = cluster.now;
    cluster.decide(Event::Interrupted);
    assert_eq!(cluster.wait().action, Action::KillAll);
    assert_eq!(cluster.now, start + GRACE);
}

#[test]
fn an_interrupt_forgets_a_restart_that_was_due() {
    let mut cluster = Cluster::running(1);
    cluster.ended(Role::Worker(0), KILLED);
    cluster.decide(Event::Interrupted);
    cluster.ended(Role::Server, DONE);
    assert_eq!(cluster.outcome(), Some(Outcome::Interrupted));
}

#[test]
fn one_of_several_servers_starts_again_and_all_end_together() {
    let mut cluster = Cluster::with_followers(2, 1);
    let decision = cluster.ended(Role::Follower(1), KILLED);
    assert_eq!(decision.action, Action::Start(Role::Follower(1)));
    assert!(decision.reason.is_some_and(|reason| reason.starts_with("server-2 was killed")));
    assert_eq!(cluster.ended(Role::Server, KILLED).action, Action::Start(Role::Server));
    cluster.ended(Role::Worker(0), DONE);
    assert_eq!(cluster.ended(Role::Follower(0), DONE).action, Action::Nothing);
    assert_eq!(cluster.ended(Role::Server, DONE).action, Action::StopOthers);
    assert_eq!(cluster.outcome(), None, "server-2 is still there");
    cluster.ended(Role::Follower(1), DONE);
    assert_eq!(cluster.outcome(), Some(Outcome::Finished));
}

#[test]
fn without_one_of_several_servers_the_run_fails() {
    let mut cluster = Cluster::with_followers(1, 1);
    assert_eq!(cluster.ended(Role::Follower(0), REFUSED).action, Action::DrainServer);
    cluster.ended(Role::Server, REFUSED);
    cluster.ended(Role::Worker(0), LEFT);
    assert_eq!(failed(&cluster), "server-1 ended with exit code 1");
}

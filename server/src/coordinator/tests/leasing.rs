//! Who computes what, and what happens when it does not come.

use hw2_common::ids::{Assignment, GlobalStep, ReplicaId};

use super::world::{ASSIGNMENT_MS, SILENCE_MS, WAIT_MS, World, job};
use crate::coordinator::{Admission, Credit, Directive, Level, Outcome};

#[test]
fn one_worker_computes_all_replicas_in_order() {
    let (mut world, workers) = World::training(job(), 1);
    let worker = workers[0];
    assert_eq!(world.replicas(worker), [0, 1, 2]);
    for replica in 0..3 {
        assert_eq!(world.push(worker, 0, replica), Outcome::Counted);
    }
    assert_eq!(world.commits.len(), 1);
    let update = world.commits[0].1.unwrap();
    assert_eq!((update.number, update.learning_rate), (1, 1e-3));
    assert_eq!(world.replicas(worker), [0, 1, 2]);
}

#[test]
fn replicas_stay_with_their_workers_and_a_newcomer_gets_its_share_with_the_next_step() {
    let (mut world, mut workers) = World::training(job(), 2);
    world.step(&workers);
    assert_eq!(world.replicas(workers[0]), [0, 2]);
    assert_eq!(world.replicas(workers[1]), [1]);
    let newcomer = world.join();
    assert!(world.replicas(newcomer).is_empty());
    workers.push(newcomer);
    world.step(&workers);
    let shares = workers.iter().map(|worker| world.replicas(*worker));
    assert_eq!(shares.collect::<Vec<_>>(), [[0], [1], [2]]);
}

#[test]
fn a_silent_workers_replica_goes_to_one_who_waits() {
    let (mut world, workers) = World::training(job(), 3);
    for (worker, replica) in [(workers[0], 0), (workers[1], 1)] {
        world.replicas(worker);
        world.push(worker, 0, replica);
        world.next(worker);
    }
    let before = world.releases();
    world.alive.remove(&workers[2]);
    world.pass(SILENCE_MS);
    assert_eq!(world.releases(), before);
    world.pass(SILENCE_MS);
    world.next(workers[0]);
    assert_eq!(world.releases(), before + 1);
    let replicas = world.replicas(workers[0]).len() + world.replicas(workers[1]).len();
    assert_eq!(replicas, 1, "one of them has it");
    world.step(&workers[..2]);
    assert_eq!(world.replicas(workers[0]).len() + world.replicas(workers[1]).len(), 3);
}

#[test]
fn the_first_contribution_counts_even_from_a_worker_that_was_lost() {
    let (mut world, workers) = World::training(job(), 3);
    world.alive.remove(&workers[2]);
    world.pass(2 * SILENCE_MS);
    let taken = world.replicas(workers[0]);
    assert!(taken.contains(&2), "{taken:?}");
    assert_eq!(world.push(workers[2], 0, 2), Outcome::Counted);
    assert_eq!(world.push(workers[0], 0, 2), Outcome::Duplicate);
    assert_eq!(world.replicas(workers[0]), [0], "what is in need not be computed");
    let waiter = world.next(workers[2]);
    assert!(matches!(world.directed[&waiter], Directive::Rejoin(_)));
}

#[test]
fn a_worker_that_is_alive_but_stuck_loses_its_leases_until_it_asks_again() {
    let (mut world, workers) = World::training(job(), 2);
    let stuck = workers[0];
    world.push(workers[1], 0, 1);
    world.next(workers[1]);
    world.pass(ASSIGNMENT_MS);
    assert!(world.replicas(workers[1]).is_empty());
    world.pass(200);
    // Up to its fair share of three replicas for two workers, and then the rest.
    assert_eq!(world.replicas(workers[1]), [0]);
    world.push(workers[1], 0, 0);
    assert_eq!(world.replicas(workers[1]), [2]);
    world.push(workers[1], 0, 2);
    assert_eq!(world.global_step(), 1);
    assert_eq!(world.replicas(workers[1]), [0, 1, 2], "nothing for the one that is stuck");
    assert!(world.replicas(stuck).is_empty());
    world.step(&workers);
    assert_eq!(world.replicas(stuck).len() + world.replicas(workers[1]).len(), 3);
    assert!(!world.replicas(stuck).is_empty());
}

#[test]
fn all_workers_may_go_and_the_run_waits_and_goes_on() {
    let (mut world, workers) = World::training(job(), 2);
    world.push(workers[1], 0, 2);
    world.alive.clear();
    world.pass(2 * SILENCE_MS);
    let status = world.coordinator.status(world.now);
    assert_eq!(status.phase, "waiting for workers");
    assert!(status.waiting_for.contains("a worker that joins"), "{}", status.waiting_for);
    assert!(status.waiting.as_millis() >= u128::from(SILENCE_MS));
    assert!(world.said(Level::Warn, "no worker is left"));
    world.pass(31_000);
    assert!(world.said(Level::Warn, "s for a worker that joins, at step 0"));
    let next = world.join();
    assert_eq!(world.replicas(next), [0, 1], "replica 2 is in");
    world.step(&[next]);
    assert_eq!(world.global_step(), 1);
}

#[test]
fn a_worker_that_leaves_or_hangs_up_gives_everything_back_at_once() {
    for goes in [World::leave, World::hang_up] {
        let (mut world, workers) = World::training(job(), 3);
        let waiter = world.next(workers[0]);
        assert!(world.directed.contains_key(&waiter));
        world.push(workers[0], 0, 0);
        let waiter = world.next(workers[0]);
        assert!(!world.directed.contains_key(&waiter));
        goes(&mut world, workers[1]);
        assert!(matches!(&world.directed[&waiter], Directive::Run { .. }), "answered at once");
        let before = world.notices.len();
        goes(&mut world, workers[1]);
        assert_eq!(world.notices.len(), before, "once is enough");
    }
}

#[test]
fn spares_wait_with_a_reason_and_lead_after_an_evaluation() {
    let (mut world, workers) = World::training(job(), 5);
    let spares = &workers[3..];
    let waiter = world.next(spares[0]);
    world.pass(WAIT_MS);
    let Directive::Wait(reason) = &world.directed[&waiter] else { panic!("it waits") };
    assert!(reason.contains("step 0: replica 0 from worker 1 (host:0)"), "{reason}");
    for _ in 0..4 {
        world.step(&workers);
    }
    let led: Vec<u64> = contributions(&world);
    assert_eq!(led, [4, 4, 4, 0, 0]);
    world.evaluate(workers[0]);
    for spare in spares {
        assert_eq!(world.replicas(*spare).len(), 1);
    }
}

#[test]
fn an_interrupted_push_is_offered_again_but_not_while_it_runs() {
    let (mut world, workers) = World::training(job(), 1);
    let worker = workers[0];
    world.push(worker, 0, 1);
    world.push(worker, 0, 2);
    let assignment = super::world::assignment(0, 0);
    world.coordinator.admit(world.now, worker, assignment).unwrap();
    let waiter = world.next(worker);
    assert!(!world.directed.contains_key(&waiter), "it is pushing what it owes");
    world.coordinator.push_failed(world.now, worker, assignment);
    world.carry_out();
    assert!(matches!(&world.directed[&waiter], Directive::Run { assignments, .. }
        if assignments.len() == 1));
}

#[test]
fn a_newer_push_of_the_same_replica_outlives_the_failure_of_the_older() {
    let (mut world, workers) = World::training(job(), 1);
    let (worker, assignment) = (workers[0], super::world::assignment(0, 0));
    world.coordinator.admit(world.now, worker, assignment).unwrap();
    world.coordinator.admit(world.now, worker, assignment).unwrap();
    world.coordinator.push_failed(world.now, worker, assignment);
    assert_eq!(world.replicas(worker), [1, 2]);
}

#[test]
fn a_narrow_window_gives_credit_in_replica_order() {
    let mut job = job();
    job.config.cluster.push_window = 1;
    let (mut world, workers) = World::training(job, 1);
    let waiter = world.next(workers[0]);
    let Directive::Run { assignments, .. } = &world.directed[&waiter] else { panic!("work") };
    let credit: Vec<bool> = assignments.iter().map(|leased| leased.credit).collect();
    assert_eq!(credit, [true, true, false]);
    assert_eq!(world.push(workers[0], 0, 2), Outcome::Dropped, "beyond the window");
}

#[test]
fn a_question_for_credit_is_answered_when_the_window_moves() {
    let mut job = job();
    job.config.cluster.push_window = 1;
    let (mut world, workers) = World::training(job, 3);
    let asks = world.ask_credit(workers[2], 0, 2);
    assert!(!world.credited.contains_key(&asks));
    world.pass(WAIT_MS);
    let Credit::Wait(reason) = &world.credited[&asks] else { panic!("it waits") };
    assert!(reason.contains("replica 0 from worker 1"), "{reason}");
    let asks = world.ask_credit(workers[2], 0, 2);
    world.push(workers[0], 0, 0);
    assert_eq!(world.credited[&asks], Credit::Push);
    world.push(workers[2], 0, 2);
    let late = world.ask_credit(workers[2], 0, 2);
    assert!(matches!(&world.credited[&late], Credit::Drop(_)), "it is in");
}

#[test]
fn when_the_worker_of_replica_0_dies_a_higher_replica_is_given_back_for_it() {
    let mut job = job();
    job.config.cluster.push_window = 1;
    job.config.cluster.wait_ms = 10 * SILENCE_MS;
    let (mut world, workers) = World::training(job, 3);
    let survivor = workers[2];
    let asks = world.ask_credit(survivor, 0, 2);
    world.alive = [survivor].into();
    world.pass(2 * SILENCE_MS);
    let Credit::Drop(reason) = &world.credited[&asks] else { panic!("given back") };
    assert!(reason.contains("replica 2 waits for replica 0"), "{reason}");
    assert!(world.replicas(survivor).contains(&0));
    world.step(&[survivor]);
}

#[test]
fn a_worker_that_holds_a_lower_replica_itself_must_compute_that_first() {
    let mut job = job();
    job.config.cluster.push_window = 1;
    let (mut world, workers) = World::training(job, 1);
    let asks = world.ask_credit(workers[0], 0, 2);
    assert!(matches!(&world.credited[&asks], Credit::Drop(_)));
    assert_eq!(world.replicas(workers[0]), [0, 1, 2]);
}

#[test]
fn a_worker_that_waits_for_credit_is_not_stuck() {
    let mut job = job();
    job.config.cluster.push_window = 1;
    let (mut world, workers) = World::training(job, 3);
    for _ in 0..ASSIGNMENT_MS / WAIT_MS + 2 {
        world.ask_credit(workers[2], 0, 2);
        world.pass(WAIT_MS);
    }
    assert!(world.said(Level::Warn, "worker 1 (host:0) got nothing done in 10000 ms"));
    assert!(!world.said(Level::Warn, "worker 3"));
}

/// With the question it only says that it would like to push while it computes.
#[test]
fn one_that_asks_for_credit_early_is_stuck_if_it_does_not_compute() {
    let mut job = job();
    job.config.cluster.push_window = 1;
    let (mut world, workers) = World::training(job, 3);
    let early = world.ask_credit_early(workers[2], 0, 2, true);
    world.push(workers[0], 0, 0);
    assert_eq!(world.credited.get(&early), Some(&Credit::Push), "as soon as there is room");
    for _ in 0..ASSIGNMENT_MS / WAIT_MS + 2 {
        world.ask_credit_early(workers[1], 0, 1, true);
        world.ask_credit_early(workers[2], 0, 2, true);
        world.pass(WAIT_MS);
    }
    assert!(world.said(Level::Warn, "worker 3 (host:2) got nothing done in 10000 ms"));
}

#[test]
fn a_newer_question_ends_the_older() {
    let (mut world, workers) = World::training(job(), 4);
    let spare = workers[3];
    let (older, newer) = (world.next(spare), world.next(spare));
    assert!(matches!(&world.directed[&older], Directive::Wait(_)));
    assert!(!world.directed.contains_key(&newer));
    world.leave(workers[0]);
    assert!(matches!(&world.directed[&newer], Directive::Run { .. }));
}

#[test]
fn what_a_worker_pushes_while_it_asks_is_not_asked_of_it_again() {
    let (mut world, workers) = World::training(job(), 1);
    let worker = workers[0];
    for replica in [0, 1] {
        world.push(worker, 0, replica);
    }
    let pushing = Assignment { step: GlobalStep(0), replica: ReplicaId(2) };
    // The question may overtake the head of the push.
    let waiter = world.next_while_pushing(worker, pushing);
    assert!(!world.directed.contains_key(&waiter));
    assert_eq!(world.coordinator.admit(world.now, worker, pushing), Ok(Admission::Receive));
    assert!(!world.directed.contains_key(&waiter));
    world.coordinator.push_failed(world.now, worker, pushing);
    world.carry_out();
    let Some(Directive::Run { assignments, .. }) = world.directed.get(&waiter) else {
        panic!("the push came to nothing, so that it is asked for again")
    };
    assert_eq!(assignments[0].replica, pushing.replica);
    let waiter = world.next_while_pushing(worker, pushing);
    world.push(worker, 0, 2);
    assert!(matches!(
        world.directed.get(&waiter),
        Some(Directive::Run { step: GlobalStep(1), .. })
    ));
}

#[test]
fn only_work_keeps_a_lease() {
    type Noise = fn(&mut World, hw2_common::ids::WorkerId);
    let noises: [Noise; 4] = [
        |world, worker| {
            world.next(worker);
        },
        |world, worker| {
            world.ask_credit(worker, 0, 0);
        },
        |world, worker| world.report(worker, 0, 0, 1),
        |world, worker| {
            world.push(worker, 0, 1);
        },
    ];
    for noise in noises {
        let (mut world, workers) = World::training(job(), 2);
        assert_eq!(world.replicas(workers[0]), [0, 2]);
        world.push(workers[1], 0, 1);
        world.next(workers[1]);
        for _ in 0..ASSIGNMENT_MS / 1000 {
            world.pass(1000);
            noise(&mut world, workers[0]);
            world.next(workers[1]);
        }
        world.pass(1000);
        assert!(world.said(Level::Warn, "its leases expire"));
        let waiter = world.next(workers[1]);
        assert!(matches!(world.directed.get(&waiter), Some(Directive::Run { .. })));
    }
}

fn contributions(world: &World) -> Vec<u64> {
    let status = world.coordinator.status(world.now);
    status.workers.iter().map(|worker| worker.contributions).collect()
}

#[test]
fn a_worker_may_ask_when_it_begins_to_compute_however_long_that_takes() {
    let (mut world, workers) = World::training(job(), 3);
    let waiter = world.next_while_pushing(workers[0], super::world::assignment(0, 0));
    world.pass(3 * WAIT_MS);
    assert!(!world.directed.contains_key(&waiter), "it computes, and does not wait");
    world.push(workers[0], 0, 0);
    world.pass(WAIT_MS / 2);
    assert!(!world.directed.contains_key(&waiter), "it has not waited for long");
    world.push(workers[1], 0, 1);
    world.push(workers[2], 0, 2);
    let directive = world.directed.get(&waiter);
    assert!(matches!(directive, Some(Directive::Run { step: GlobalStep(1), .. })), "{directive:?}");
}

#[test]
fn one_that_is_stuck_is_given_nothing_by_what_it_asked_before() {
    let (mut world, workers) = World::training(job(), 2);
    let stuck = workers[0];
    let waiter = world.next_while_pushing(stuck, super::world::assignment(0, 0));
    world.push(workers[1], 0, 1);
    world.next(workers[1]);
    world.pass(ASSIGNMENT_MS + 200);
    let Some(Directive::Wait(reason)) = world.directed.get(&waiter) else { panic!("it is told") };
    assert!(reason.contains("its leases expire"), "{reason}");
    for replica in [0, 2] {
        world.push(workers[1], 0, replica);
    }
    assert_eq!(world.global_step(), 1);
    assert_eq!(world.replicas(workers[1]), [0, 1, 2], "nothing for the one that is stuck");
}

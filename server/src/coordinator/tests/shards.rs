//! A run on several servers: what counts is what every one of them has.

use hw2_common::state::Progress;

use super::world::{World, assignment, contribution, job, share};
use crate::coordinator::{Directive, Effect, Ending, Order, Outcome, Refusal, Share};

/// Two servers, two workers that are to compute step 0, of one replica.
fn world() -> (World, Vec<hw2_common::ids::WorkerId>) {
    let mut job = job();
    job.config.replicas = 1;
    let progress = Progress::initial(&job.config.optimizer);
    let mut world = World::on_servers(2, job, progress, false);
    world.commits_at_once = false;
    let workers: Vec<_> = (0..2).map(|_| world.join()).collect();
    world.evaluate(workers[0]);
    (world, workers)
}

/// What goes to either server of what `worker` computes.
fn shares(worker: hw2_common::ids::WorkerId, step: u64) -> [Share; 2] {
    let first = share(contribution(worker, step, 0));
    let second = Share { shard: 1, gradient: 77, rest: None, ..first.clone() };
    [first, second]
}

impl World {
    fn receive(&mut self, share: Share) -> Outcome {
        self.coordinator.admit(self.now, share.worker, share.assignment).unwrap();
        let outcome = self.coordinator.receive(self.now, share).unwrap();
        self.carry_out();
        outcome
    }
}

#[test]
fn a_step_goes_on_when_every_server_has_made_its_update() {
    let (mut world, workers) = world();
    let waiter = world.next_while_pushing(workers[0], assignment(0, 0));
    let [first, second] = shares(workers[0], 0);
    assert_eq!(world.receive(second), Outcome::Received);
    assert!(world.held.is_empty() && world.commits.is_empty());
    assert!(!world.directed.contains_key(&waiter), "it is still pushing");
    assert_eq!(world.receive(first), Outcome::Counted);
    assert_eq!(world.commits.len(), 1);
    world.coordinator.update_made(world.now, 0);
    assert_eq!(world.global_step(), 0);
    let waiting = world.coordinator.status(world.now).waiting_for;
    assert_eq!(waiting, "step 0: the update of shard 1/2");
    world.coordinator.update_made(world.now, 1);
    world.carry_out();
    assert_eq!(world.global_step(), 1);
    assert!(matches!(&world.directed[&waiter], Directive::Run { step, .. } if step.0 == 1));
}

#[test]
fn shares_of_two_workers_make_no_contribution() {
    let (mut world, workers) = world();
    let [first, _] = shares(workers[0], 0);
    let [_, second] = shares(workers[1], 0);
    assert_eq!(world.receive(first), Outcome::Received);
    assert_eq!(world.receive(second), Outcome::Received);
    assert!(world.held.is_empty());
    // What is in counts, wherever its worker is.
    world.leave(workers[0]);
    let [_, second] = shares(workers[0], 0);
    assert_eq!(world.receive(second), Outcome::Counted);
}

#[test]
fn a_second_contribution_that_differs_on_any_server_ends_the_run() {
    let (mut world, workers) = world();
    for share in shares(workers[0], 0) {
        world.receive(share);
    }
    let [first, second] = shares(workers[1], 0);
    world.receive(first);
    let other = Share { gradient: 78, ..second };
    assert_eq!(world.receive(other), Outcome::Dropped);
    assert_eq!(world.coordinator.over().unwrap().0, Ending::Failed);
}

#[test]
fn a_result_that_cannot_be_is_refused_before_the_other_shares_are_in() {
    let (mut world, workers) = world();
    let [mut first, _] = shares(workers[0], 0);
    first.rest.as_mut().unwrap().result.samples = 5;
    let refused = world.coordinator.receive(world.now, first);
    assert!(matches!(refused, Err(Refusal::Invalid(_))), "{refused:?}");
    let forget = Effect::Order(Order::Forget(workers[0], assignment(0, 0)));
    assert!(world.coordinator.take_effects().contains(&forget));
}

/// Only a server that does not keep to the protocol says so.
#[test]
fn an_update_is_awaited_while_a_step_commits() {
    let (mut world, workers) = world();
    assert!(!world.coordinator.awaits_update_of(1));
    shares(workers[0], 0).into_iter().for_each(|share| _ = world.receive(share));
    assert!(world.coordinator.awaits_update_of(1));
    world.coordinator.update_made(world.now, 1);
    assert!(!world.coordinator.awaits_update_of(1) && world.coordinator.awaits_update_of(0));
}

#[test]
fn a_share_of_a_step_that_is_over_is_forgotten() {
    let (mut world, workers) = world();
    let [late_first, late_second] = shares(workers[1], 0);
    world.receive(late_first);
    for share in shares(workers[0], 0) {
        world.receive(share);
    }
    world.coordinator.update_made(world.now, 0);
    world.coordinator.update_made(world.now, 1);
    world.carry_out();
    assert_eq!(world.coordinator.receive(world.now, late_second), Ok(Outcome::Dropped));
    let forget = Effect::Order(Order::Forget(workers[1], assignment(0, 0)));
    assert!(world.coordinator.take_effects().contains(&forget));
    assert_eq!(world.global_step(), 1);
    assert!(world.held.is_empty());
}

//! What must not reach the weights: duplicates, differences, NaN, hostile and stale messages.

use hw2_common::config::NonFinite;
use hw2_common::ids::{Term, WorkerId};

use super::world::{World, assignment, block_report, contribution, job, share};
use crate::coordinator::{
    Contribution, Effect, Ending, Level, Order, Outcome, Refusal, StepResult, Waiter,
};

fn with_nan(worker: WorkerId, step: u64, replica: u32) -> Contribution {
    Contribution {
        non_finite: Some("gradient of dense1.weight is NaN at element 3".into()),
        ..contribution(worker, step, replica)
    }
}

#[test]
fn a_second_contribution_with_other_bits_ends_the_run_and_names_both() {
    let (mut world, workers) = World::training(job(), 2);
    world.push(workers[0], 0, 1);
    let mut other = contribution(workers[1], 0, 1);
    other.digest.gradient[0] ^= 1;
    assert_eq!(world.push_this(other), Ok(Outcome::Dropped));
    let (ending, reason) = world.coordinator.over().unwrap();
    assert_eq!(ending, Ending::Failed);
    for name in ["worker 1 (host:0)", "worker 2 (host:1)", "step 0, replica 1"] {
        assert!(reason.contains(name), "{reason}");
    }
    assert!(world.held.is_empty());
    assert_eq!(world.saves.len(), 1, "nothing of it is saved");
}

#[test]
fn where_mixing_is_allowed_the_first_bits_count() {
    let mut job = job();
    job.config.cluster.allow_mixed = true;
    let (mut world, workers) = World::training(job, 2);
    world.push(workers[0], 0, 1);
    let mut other = contribution(workers[1], 0, 1);
    other.digest.gradient[0] ^= 1;
    assert_eq!(world.push_this(other), Ok(Outcome::Dropped));
    assert!(world.coordinator.over().is_none());
    assert!(world.said(Level::Warn, "other bits"));
}

#[test]
fn a_contribution_can_be_compared_while_the_update_is_being_made() {
    let (mut world, workers) = World::training(job(), 2);
    world.commits_at_once = false;
    for replica in 0..3 {
        world.push(workers[0], 0, replica);
    }
    assert_eq!(world.push(workers[1], 0, 1), Outcome::Duplicate);
    let mut other = contribution(workers[1], 0, 2);
    other.digest.statistics ^= 1;
    world.push_this(other).unwrap();
    assert_eq!(world.coordinator.over().unwrap().0, Ending::Failed);
    world.coordinator.update_made(world.now, 0);
    assert_eq!(world.global_step(), 0, "nobody can tell which bits were right");
}

#[test]
fn two_different_counts_of_a_block_end_the_run() {
    let mut world = World::new(job());
    let workers = [world.join(), world.join()];
    world.report(workers[0], 0, 0, 1);
    world.report(workers[1], 0, 0, 1);
    assert!(world.coordinator.over().is_none());
    world.report(workers[1], 0, 0, 2);
    let (ending, reason) = world.coordinator.over().unwrap();
    assert_eq!(ending, Ending::Failed);
    assert!(reason.contains("block 0 of the evaluation of step 0"), "{reason}");
}

#[test]
fn a_nan_stops_the_run_with_worker_step_and_samples() {
    let (mut world, workers) = World::training(job(), 1);
    world.push(workers[0], 0, 0);
    assert_eq!(world.push_this(with_nan(workers[0], 0, 1)), Ok(Outcome::Dropped));
    let (ending, reason) = world.coordinator.over().unwrap();
    assert_eq!(ending, Ending::Failed);
    let samples = crate::coordinator::samples::of(&world.job, assignment(0, 1));
    for part in ["worker 1 (host:0)", "step 0, replica 1", "dense1.weight", &format!("{samples:?}")]
    {
        assert!(reason.contains(part), "{reason}");
    }
    assert!(world.commits.is_empty());
    assert_eq!(world.replays[0].samples, samples);
    assert_eq!(world.replays[0].progress.global_step.0, 0);
}

#[test]
fn a_nan_can_be_a_step_without_update_that_is_recorded() {
    let mut job = job();
    job.config.on_non_finite = NonFinite::Skip;
    let (mut world, workers) = World::training(job, 2);
    world.push(workers[0], 0, 0);
    world.push_this(with_nan(workers[0], 0, 1)).unwrap();
    assert_eq!(world.commits, [(0, None)]);
    let progress = world.coordinator.progress().clone();
    assert_eq!((progress.global_step.0, progress.skipped_steps, progress.updates()), (1, 1, 0));
    assert_eq!(world.push(workers[1], 0, 2), Outcome::Dropped, "of a step that is over");
    world.step(&workers);
    assert_eq!(world.commits[1].1.unwrap().number, 1, "the first update");
    assert!(world.said(Level::Error, "makes no update"));
}

#[test]
fn what_comes_while_a_skipped_step_commits_is_dropped() {
    let mut job = job();
    job.config.on_non_finite = NonFinite::Skip;
    let (mut world, workers) = World::training(job, 2);
    world.commits_at_once = false;
    world.push_this(with_nan(workers[0], 0, 0)).unwrap();
    assert_eq!(world.push(workers[1], 0, 2), Outcome::Dropped);
    assert!(world.held.is_empty());
}

#[test]
fn pushes_of_other_steps_are_dropped_or_refused() {
    let (mut world, workers) = World::training(job(), 1);
    world.step(&workers);
    assert_eq!(world.push(workers[0], 0, 0), Outcome::Dropped, "an older step");
    let future = world.push_this(contribution(workers[0], 2, 0));
    assert!(matches!(future, Err(Refusal::NotNow(_))), "{future:?}");
}

#[test]
fn a_push_that_was_let_in_and_comes_too_late_is_dropped() {
    let (mut world, workers) = World::training(job(), 2);
    let slow = contribution(workers[0], 0, 0);
    world.coordinator.admit(world.now, workers[0], slow.assignment).unwrap();
    for replica in 0..3 {
        world.push(workers[1], 0, replica);
    }
    assert_eq!(world.global_step(), 1);
    assert_eq!(world.coordinator.receive(world.now, share(slow)), Ok(Outcome::Dropped));
    let forget = Effect::Order(Order::Forget(workers[0], assignment(0, 0)));
    assert_eq!(world.coordinator.take_effects(), [forget]);
}

#[test]
fn messages_that_cannot_be_change_nothing() {
    let (mut world, workers) = World::training(job(), 1);
    world.next(workers[0]);
    let before = world.coordinator.status(world.now);
    let honest = contribution(workers[0], 0, 0);
    let result = |samples, top1| StepResult { loss: 1.0, samples, top1 };
    for (bad, rejoin) in [
        (contribution(workers[0], 0, 3), false),
        (contribution(workers[0], 0, u32::MAX), false),
        (Contribution { result: result(5, 0), ..honest.clone() }, false),
        (Contribution { result: result(4, 5), ..honest.clone() }, false),
        (Contribution { bad_images: vec![String::new(); 31], ..honest.clone() }, false),
        (contribution(WorkerId(9), 0, 0), true),
        (contribution(WorkerId(0), 0, 0), true),
    ] {
        match world.push_this(bad) {
            Err(Refusal::Rejoin(_)) => assert!(rejoin),
            Err(Refusal::Invalid(_)) => assert!(!rejoin),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.coordinator.status(world.now), before);
    let stale = world.coordinator.check_term(Term(6)).unwrap_err();
    assert!(matches!(&stale, Refusal::Rejoin(_)));
    assert!(stale.message().contains("term 6") && stale.message().contains("term 7"));
    let credit =
        world.coordinator.credit(world.now, workers[0], assignment(0, 9), false, Waiter(99));
    assert!(matches!(credit, Err(Refusal::Invalid(_))));
    let pushing = Some(assignment(0, 9));
    let asked = world.coordinator.next(world.now, workers[0], pushing, Waiter(99));
    assert!(matches!(asked, Err(Refusal::Invalid(_))));
    let credit =
        world.coordinator.credit(world.now, workers[0], assignment(9, 0), false, Waiter(99));
    assert!(matches!(credit, Err(Refusal::NotNow(_))));
}

#[test]
fn bad_images_are_named_once_and_end_the_run_when_they_are_too_many() {
    let mut job = job();
    job.config.images.bad_images_max = 0.05; // of 48 images: 2
    let mut world = World::new(job);
    let worker = world.join();
    let mut report = block_report(worker, 0, 0, 1);
    report.bad_images = vec!["val/a/1.jpg".into(), "val/a/1.jpg".into()];
    world.report_this(report.clone()).unwrap();
    world.report_this(report).unwrap();
    assert_eq!(world.coordinator.status(world.now).bad_images, 1);
    let named = |text: &String| text.contains("val/a/1.jpg");
    assert_eq!(world.notices.iter().filter(|(_, text)| named(text)).count(), 1);
    let mut report = block_report(worker, 0, 1, 1);
    report.bad_images = vec!["val/a/2.jpg".into(), "val/b/3.jpg".into()];
    world.report_this(report).unwrap();
    let (ending, reason) = world.coordinator.over().unwrap();
    assert_eq!(ending, Ending::Failed);
    assert!(reason.contains("3 of 48 images") && reason.contains("allows 2"), "{reason}");
}

//! Evaluation as a barrier, the plateau, checkpoints, and the end of a run.

use hw2_common::ids::GlobalStep;

use super::world::{SILENCE_MS, World, block_report, job};
use crate::coordinator::{Directive, Ending, Level, Refusal};
use crate::curve::Line;

#[test]
fn no_step_is_leased_before_its_evaluation_is_complete() {
    let mut world = World::new(job());
    let (a, b) = (world.join(), world.join());
    let waiter = world.next(a);
    let Directive::Evaluate { step: GlobalStep(0), blocks } = world.directed[&waiter].clone()
    else {
        panic!("an evaluation comes first")
    };
    let waits = world.next(b);
    let Directive::Evaluate { blocks: others, .. } = world.directed[&waits].clone() else {
        panic!("for all of them")
    };
    let admitted = world.coordinator.admit(world.now, a, super::world::assignment(0, 0));
    assert!(matches!(admitted, Err(Refusal::NotNow(_))));
    for block in blocks.iter().chain(&others) {
        world.report(a, 0, block.0, 1);
    }
    world.evaluate(b);
    assert_eq!(world.saves.len(), 1);
    let evaluation = world.saves[0].last_evaluation.unwrap();
    assert_eq!((evaluation.samples, evaluation.top1, evaluation.top5), (18, 5, 18));
    assert_eq!(evaluation.loss, 10.0 / 18.0);
    assert_eq!(world.replicas(a).len() + world.replicas(b).len(), 3);
}

#[test]
fn a_dead_workers_blocks_are_leased_again_and_counted_once() {
    let mut world = World::new(job());
    let dead = world.join();
    let waiter = world.next(dead);
    let Directive::Evaluate { blocks, .. } = world.directed[&waiter].clone() else { panic!() };
    assert_eq!(blocks.len(), 3);
    world.report(dead, 0, blocks[0].0, 1);
    world.alive.clear();
    world.pass(2 * SILENCE_MS);
    let other = world.join();
    world.evaluate(other);
    assert_eq!(world.saves[0].last_evaluation.unwrap().samples, 18);
    assert_eq!(world.releases(), 2);
    // The late report of a block that was counted, of a step that is being trained.
    world.report(dead, 0, blocks[1].0, 1);
    assert_eq!(world.replicas(other), [0, 1, 2]);
}

#[test]
fn only_regular_evaluations_feed_the_plateau() {
    let mut job = job();
    job.config.optimizer.lr_patience = 1;
    let (mut world, workers) = World::training(job, 1);
    let mut counts = [3, 2, 4].into_iter();
    while world.coordinator.over().is_none() {
        world.step(&workers);
        if world.global_step() % 4 == 0 || world.global_step() == 10 {
            world.evaluate_with(workers[0], counts.next().unwrap().min(2));
        }
    }
    let steps: Vec<_> = world.saves.iter().map(|saved| saved.global_step.0).collect();
    assert_eq!(steps, [0, 4, 8, 10]);
    let last = world.saves.last().unwrap();
    assert_eq!(last.last_evaluation.unwrap().step, GlobalStep(10));
    assert_eq!(last.best_evaluation.unwrap().step, GlobalStep(4));
    assert_eq!((last.stale_evaluations, last.halvings), (1, 1));
    assert_eq!(last.learning_rate, 5e-4);
    assert_eq!(world.coordinator.over().unwrap().0, Ending::Finished);
    let status = world.coordinator.status(world.now);
    assert_eq!(status.phase, "finished");
    assert_eq!(status.replayed_steps, 6, "an earlier server had committed six");
}

#[test]
fn a_run_that_goes_on_with_more_steps_equals_one_that_never_stopped() {
    let finish = |world: &mut World, worker| {
        while world.coordinator.over().is_none() {
            let step = world.global_step();
            match world.coordinator.status(world.now).phase {
                "evaluating" => world.evaluate_with(worker, (step as u32 * 7) % 3),
                _ => world.step(&[worker]),
            }
        }
        world.saves.last().unwrap().clone()
    };
    let mut job = job();
    job.config.optimizer.lr_patience = 1;
    job.config.max_steps = 10;
    let (mut short, workers) = World::training(job.clone(), 1);
    let at_ten = finish(&mut short, workers[0]);
    job.config.max_steps = 24;
    let (mut whole, workers) = World::training(job.clone(), 1);
    let expected = finish(&mut whole, workers[0]);
    let mut continued = World::from(job, at_ten, true);
    let worker = continued.join();
    assert_eq!(finish(&mut continued, worker), expected);
    assert!(expected.halvings > 0, "{expected:?}");
}

/// A worker that was told so has gone, and does not come back when the state turns out to be lost.
#[test]
fn no_worker_is_told_that_the_run_is_over_before_its_state_is_safe() {
    for (result, finished) in [(Ok(()), true), (Err("disk full".to_owned()), false)] {
        let mut job = job();
        job.config.max_steps = 1;
        let (mut world, workers) = World::training(job, 1);
        world.saves_at_once = false;
        world.step(&workers);
        world.evaluate(workers[0]);
        let waiter = world.next(workers[0]);
        assert_eq!(world.directed.get(&waiter), None);
        world.coordinator.saved(world.now, result);
        world.carry_out();
        let told = &world.directed[&waiter];
        assert!(
            matches!(told, Directive::Stop { finished: it, .. } if *it == finished),
            "{told:?}"
        );
    }
}

#[test]
fn training_ends_at_stop_patience_and_stays_ended() {
    let mut job = job();
    job.config.stop_patience = 1;
    let (mut world, workers) = World::training(job.clone(), 2);
    for _ in 0..4 {
        world.step(&workers);
    }
    workers.iter().for_each(|worker| world.evaluate(*worker));
    for worker in workers {
        let waiter = world.next(worker);
        assert!(matches!(&world.directed[&waiter], Directive::Stop { finished: true, .. }));
    }
    let (ending, reason) = world.coordinator.over().unwrap();
    assert_eq!(ending, Ending::Finished);
    assert!(reason.contains("stop_patience = 1"), "{reason}");
    let again = World::from(job, world.saves.last().unwrap().clone(), true);
    assert_eq!(again.coordinator.over().unwrap().0, Ending::Finished);
    assert!(again.saves.is_empty(), "it is saved already");
}

#[test]
fn the_next_checkpoint_waits_for_the_one_that_is_being_written() {
    let mut world = World::new(job());
    world.saves_at_once = false;
    let worker = world.join();
    world.evaluate(worker);
    for _ in 0..4 {
        world.step(&[worker]);
    }
    assert_eq!(world.saves.len(), 1, "training goes on while it is written");
    world.evaluate(worker);
    assert_eq!(world.saves.len(), 1, "only one at a time");
    let waiter = world.next(worker);
    assert!(!world.directed.contains_key(&waiter));
    assert_eq!(world.coordinator.status(world.now).phase, "saving");
    world.coordinator.saved(world.now, Ok(()));
    world.carry_out();
    assert_eq!(world.saves.len(), 2);
    assert!(matches!(&world.directed[&waiter], Directive::Run { .. }));
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_an_error_and_the_run_goes_on() {
    let mut world = World::new(job());
    world.saves_at_once = false;
    let worker = world.join();
    world.evaluate(worker);
    world.coordinator.saved(world.now, Err("disk full".into()));
    world.carry_out();
    assert!(world.said(Level::Error, "disk full"));
    assert_eq!(world.coordinator.save_failure(), Some("disk full"));
    world.step(&[worker]);
    world.coordinator.drain(world.now, "enough");
    world.carry_out();
    assert_eq!(world.saves.len(), 2, "tried again at the end");
    world.coordinator.saved(world.now, Ok(()));
    assert_eq!(world.coordinator.save_failure(), None);
    assert!(world.coordinator.over().is_some());
}

#[test]
fn draining_drops_the_step_saves_the_state_and_stops_the_workers() {
    let (mut world, workers) = World::training(job(), 2);
    world.step(&workers);
    let (busy, idle) = (workers[0], workers[1]);
    world.replicas(busy);
    world.replicas(idle);
    world.push(idle, 1, 1);
    let waiter = world.next(idle);
    world.saves_at_once = false;
    world.coordinator.drain(world.now, "SIGTERM");
    world.carry_out();
    assert!(matches!(&world.directed[&waiter], Directive::Stop { finished: false, .. }));
    assert!(world.held.is_empty());
    assert_eq!(world.saves.last().unwrap().global_step, GlobalStep(1));
    assert!(world.coordinator.over().is_none(), "it is being written");
    world.coordinator.saved(world.now, Ok(()));
    assert_eq!(world.coordinator.over(), Some((Ending::Drained, "SIGTERM")));
    assert!(!world.coordinator.is_deserted(world.now));
    assert_eq!(world.push(busy, 1, 0), crate::coordinator::Outcome::Dropped);
    world.leave(busy);
    world.pass(600);
    assert!(world.coordinator.is_deserted(world.now), "the other one has been told");
}

#[test]
fn draining_waits_for_an_update_that_is_being_made() {
    let (mut world, workers) = World::training(job(), 1);
    world.commits_at_once = false;
    for replica in 0..3 {
        world.push(workers[0], 0, replica);
    }
    world.coordinator.drain(world.now, "SIGTERM");
    world.carry_out();
    assert!(world.coordinator.over().is_none());
    world.coordinator.update_made(world.now, 0);
    world.carry_out();
    assert_eq!(world.saves.last().unwrap().global_step, GlobalStep(1));
    assert_eq!(world.coordinator.over().unwrap().0, Ending::Drained);
}

#[test]
fn a_restart_evaluates_first_when_that_is_due() {
    let (mut world, workers) = World::training(job(), 1);
    for _ in 0..4 {
        world.step(&workers);
    }
    world.coordinator.drain(world.now, "SIGTERM");
    world.carry_out();
    let saved = world.saves.last().unwrap().clone();
    assert_eq!((saved.global_step, saved.last_evaluation.unwrap().step.0), (GlobalStep(4), 0));
    let mut again = World::from(job(), saved, true);
    let worker = again.join();
    let waiter = again.next(worker);
    assert!(matches!(&again.directed[&waiter], Directive::Evaluate { step: GlobalStep(4), .. }));
}

#[test]
fn the_curve_has_a_line_per_step_and_per_evaluation() {
    let (mut world, workers) = World::training(job(), 1);
    for _ in 0..4 {
        world.step(&workers);
    }
    world.evaluate(workers[0]);
    let steps: Vec<u64> = world.lines.iter().map(|line| line.step().0).collect();
    assert_eq!(steps, [0, 1, 2, 3, 4, 4]);
    let Line::Step { loss, train_top1, skipped: false, .. } = world.lines[1] else { panic!() };
    assert_eq!((loss, train_top1), (Some(2.0), Some(3.0 / 12.0)));
}

#[test]
fn reports_that_cannot_be_change_nothing() {
    let mut world = World::new(job());
    let worker = world.join();
    let before = world.coordinator.status(world.now);
    let invalid = [
        block_report(worker, 0, 5, 1),
        block_report(worker, 0, 0, 9),
        crate::coordinator::BlockReport {
            bad_images: vec!["x".repeat(5000)],
            ..block_report(worker, 0, 0, 1)
        },
    ];
    for report in invalid {
        assert!(matches!(world.report_this(report), Err(Refusal::Invalid(_))));
    }
    let future = block_report(worker, 4, 0, 1);
    assert!(matches!(world.report_this(future), Err(Refusal::NotNow(_))));
    let stranger = block_report(hw2_common::ids::WorkerId(99), 0, 0, 1);
    assert!(matches!(world.report_this(stranger), Err(Refusal::Rejoin(_))));
    assert_eq!(world.coordinator.status(world.now), before);
}

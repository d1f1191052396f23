//! Joining, silence, and the server's own absence.

use std::time::Duration;

use super::world::{SILENCE_MS, World, contribution, introduction, job};
use crate::coordinator::{Directive, Introduction, Level, Now, Refusal, Standing};

#[test]
fn a_refused_worker_leaves_no_trace() {
    let mut world = World::new(job());
    let other = Introduction { config_fingerprint: "other".into(), ..introduction("x") };
    let refused = world.coordinator.join(world.now, other);
    assert!(matches!(refused, Err(Refusal::NotNow(_))));
    assert!(world.coordinator.status(world.now).workers.is_empty());
    assert_eq!(world.coordinator.numeric_kind(), None);
}

#[test]
fn the_first_result_and_no_mere_presence_fixes_the_numeric_kind() {
    let mut world = World::new(job());
    let neon = Introduction { numeric_kind: "neon".into(), ..introduction("x") };
    let other = world.coordinator.join(world.now, neon.clone()).unwrap();
    let worker = world.join();
    assert_eq!(world.coordinator.numeric_kind(), None);
    world.evaluate(worker);
    assert_eq!(world.coordinator.numeric_kind(), Some("avx512"));
    assert!(world.said(Level::Warn, "is of numeric kind `neon`, the run of `avx512`"));
    let refused = world.push_this(contribution(other, 0, 0)).unwrap_err();
    let message = refused.message();
    assert!(message.contains("`neon`") && message.contains("`avx512`"), "{message}");
    assert!(matches!(world.coordinator.heartbeat(world.now, other), Standing::Rejoin(_)));
    assert!(world.coordinator.join(world.now, neon).is_err());
}

#[test]
fn a_mixed_worker_is_let_in_aloud_where_that_is_allowed() {
    let mut job = job();
    job.config.cluster.allow_mixed = true;
    let mut world = World::new(job);
    let worker = world.join();
    world.evaluate(worker);
    let other = Introduction { numeric_kind: "neon".into(), ..introduction("x") };
    world.coordinator.join(world.now, other).unwrap();
    world.carry_out();
    assert!(world.said(Level::Warn, "`neon`") && world.said(Level::Warn, "`avx512`"));
}

#[test]
fn heartbeats_keep_a_member_and_silence_loses_it() {
    let mut world = World::new(job());
    let worker = world.join();
    world.pass(5 * SILENCE_MS);
    assert_eq!(world.coordinator.heartbeat(world.now, worker), Standing::KeepGoing);
    world.alive.clear();
    let waits = world.next(worker);
    world.evaluate(worker);
    let waits = [waits, world.next(worker)];
    world.pass(2 * SILENCE_MS);
    assert!(matches!(world.coordinator.heartbeat(world.now, worker), Standing::Rejoin(_)));
    assert!(waits.iter().all(|waiter| world.directed.contains_key(waiter)), "never in silence");
    assert!(world.said(Level::Warn, "worker 1 (host:0) was silent for more than 1000 ms"));
    let waiter = world.next(worker);
    assert!(matches!(&world.directed[&waiter], Directive::Rejoin(_)));
}

#[test]
fn a_server_that_was_stopped_itself_blames_nobody() {
    let mut world = World::new(job());
    let worker = world.join();
    world.now = Now(world.now.0 + Duration::from_secs(3600));
    world.coordinator.tick(world.now);
    assert_eq!(world.coordinator.heartbeat(world.now, worker), Standing::KeepGoing);
}

#[test]
fn at_the_end_a_heartbeat_says_stop_and_a_late_worker_is_told_too() {
    let mut world = World::new(job());
    let worker = world.join();
    world.coordinator.drain(world.now, "SIGTERM");
    world.carry_out();
    let standing = world.coordinator.heartbeat(world.now, worker);
    assert_eq!(standing, Standing::Stop("SIGTERM".into()));
    let late = world.join();
    let waiter = world.next(late);
    assert_eq!(
        world.directed[&waiter],
        Directive::Stop { finished: false, reason: "SIGTERM".into() }
    );
}

#[test]
fn a_workers_words_about_its_leave_are_cut_to_size() {
    let mut world = World::new(job());
    let worker = world.join();
    world.coordinator.leave(world.now, worker, &format!("tired\n{}", "x".repeat(9999)));
    world.carry_out();
    let left = |(_, text): &&(Level, String)| text.contains("left:");
    let (_, text) = world.notices.iter().find(left).unwrap();
    assert!(text.contains("left: tiredx") && text.len() < 300, "{text}");
    world.coordinator.leave(world.now, worker, "again");
    assert_eq!(world.coordinator.take_effects(), []);
}

/// Its connection may just have broken.
#[test]
fn the_end_waits_for_who_hung_up_and_may_come_back() {
    for comes_back in [true, false] {
        let (mut world, workers) = World::training(job(), 2);
        world.hang_up(workers[1]);
        world.coordinator.drain(world.now, "SIGTERM");
        world.carry_out();
        world.leave(workers[0]);
        assert!(world.coordinator.over().is_some() && !world.coordinator.is_deserted(world.now));
        match comes_back {
            // World::join makes labels of how many are there.
            true => {
                let other = world.join();
                let same = world.join();
                assert!(!world.coordinator.is_deserted(world.now), "they have not been told");
                world.leave(other);
                world.leave(same);
            }
            false => world.pass(SILENCE_MS + 100),
        }
        assert!(world.coordinator.is_deserted(world.now));
    }
}

#[test]
fn only_a_worker_that_hangs_up_before_the_end_is_worth_a_warning() {
    let (mut world, workers) = World::training(job(), 2);
    world.hang_up(workers[0]);
    assert!(world.said(Level::Warn, "worker 1 (host:0) hung up"));
    world.coordinator.drain(world.now, "SIGTERM");
    world.carry_out();
    world.next(workers[1]);
    world.hang_up(workers[1]);
    assert!(world.said(Level::Info, "worker 2 (host:1) hung up"));
}

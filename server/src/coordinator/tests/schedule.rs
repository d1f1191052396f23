//! Random schedules: whatever dies, hangs, is late or comes twice, the run ends, and ends the same.

use std::collections::VecDeque;

use hw2_common::ids::WorkerId;
use hw2_common::job::Job;
use hw2_common::rng::philox4x32;
use hw2_common::state::Progress;
use proptest::prelude::*;

use super::world::{World, assignment, contribution, job};
use crate::coordinator::{Credit, Directive, Ending, Outcome, Waiter};

/// Actions after which a run that has not ended counts as stuck.
const ACTIONS_MAX: u32 = 60_000;

/// A worker that does one thing at a time.
#[derive(Default)]
struct Worker {
    /// None while its process is dead.
    id: Option<WorkerId>,
    /// It never comes back.
    is_gone: bool,
    doing: Doing,
    tasks: VecDeque<Task>,
    /// Actions for which it does nothing at all, heartbeats included.
    hangs: u32,
}

#[derive(Clone, Copy, Default)]
enum Doing {
    #[default]
    Nothing,
    Pulling(Waiter),
    Asking(Waiter),
}

#[derive(Clone, Copy)]
enum Task {
    Compute { step: u64, replica: u32, credit: bool },
    Evaluate { step: u64, block: u32 },
}

struct Schedule {
    world: World,
    workers: Vec<Worker>,
    /// Contributions of workers that died while their last bytes were under way.
    ghosts: Vec<(WorkerId, u64, u32)>,
    faults_left: u32,
    commits_done: usize,
    saves_done: usize,
    seed: u64,
    drawn: u32,
}

impl Schedule {
    /// A random number below `bound`.
    fn draw(&mut self, bound: u32) -> u32 {
        self.drawn += 1;
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        philox4x32([self.drawn, 0, 0, 0], key)[0] % bound
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.draw(one_in) == 0
    }

    /// Lets one random thing happen.
    fn act(&mut self) {
        if self.chance(4) {
            self.world.pass(100);
        }
        if self.chance(3) {
            self.finish_aside();
        }
        if self.faults_left > 0 && self.chance(25) {
            self.faults_left -= 1;
            self.fault();
        }
        let index = self.draw(self.workers.len() as u32) as usize;
        if self.workers[index].hangs > 0 {
            self.workers[index].hangs -= 1;
            if self.workers[index].hangs == 0 {
                self.world.alive.extend(self.workers[index].id);
            }
            return;
        }
        match self.workers[index].id {
            None if self.workers[index].is_gone => {}
            None => self.workers[index].id = Some(self.world.join()),
            Some(id) => self.work(index, id),
        }
    }

    /// The data plane and the disk are done with what they were doing.
    fn finish_aside(&mut self) {
        if self.commits_done < self.world.commits.len() {
            self.commits_done += 1;
            self.world.coordinator.update_made(self.world.now, 0);
        }
        if self.saves_done < self.world.saves.len() {
            self.saves_done += 1;
            let result = if self.chance(5) { Err("disk full".into()) } else { Ok(()) };
            self.world.coordinator.saved(self.world.now, result);
        }
        self.world.carry_out();
    }

    fn fault(&mut self) {
        let index = self.draw(self.workers.len() as u32) as usize;
        let Some(id) = self.workers[index].id else { return };
        match self.draw(5) {
            0 => {
                self.world.alive.remove(&id);
                if let Some(Task::Compute { step, replica, .. }) = self.workers[index].tasks.front()
                {
                    self.ghosts.push((id, *step, *replica));
                }
                let others = self.workers.iter().filter(|worker| !worker.is_gone).count() - 1;
                let is_gone = others > 0 && self.chance(2);
                self.workers[index] = Worker { is_gone, ..Worker::default() };
            }
            1 => {
                self.world.alive.remove(&id);
                self.workers[index].hangs = 1 + self.draw(200);
            }
            2 => {
                self.world.leave(id);
                self.workers[index] = Worker::default();
            }
            3 => self.workers[index].hangs = 1 + self.draw(800), // but its heartbeats go on
            _ => {
                if let Some(Task::Compute { step, replica, .. }) = self.workers[index].tasks.front()
                {
                    let cut_off = assignment(*step, *replica);
                    if self.world.coordinator.admit(self.world.now, id, cut_off).is_ok() {
                        self.world.coordinator.push_failed(self.world.now, id, cut_off);
                        self.world.carry_out();
                    }
                    self.workers[index].tasks.pop_front();
                }
            }
        }
    }

    fn work(&mut self, index: usize, id: WorkerId) {
        if self.chance(8)
            && let Some((ghost, step, replica)) = self.ghosts.pop()
        {
            self.push(ghost, step, replica);
        }
        match self.workers[index].doing {
            Doing::Pulling(waiter) => {
                let Some(directive) = self.world.directed.remove(&waiter) else { return };
                self.workers[index].doing = Doing::Nothing;
                self.obey(index, directive);
            }
            Doing::Asking(waiter) => {
                let Some(credit) = self.world.credited.remove(&waiter) else { return };
                self.workers[index].doing = Doing::Nothing;
                match (credit, self.workers[index].tasks.front_mut()) {
                    (Credit::Push, Some(Task::Compute { credit, .. })) => *credit = true,
                    (Credit::Wait(_), _) => {}
                    _ => drop(self.workers[index].tasks.pop_front()),
                }
            }
            Doing::Nothing => match self.workers[index].tasks.front().copied() {
                None => self.workers[index].doing = Doing::Pulling(self.world.next(id)),
                Some(Task::Evaluate { step, block }) => {
                    self.workers[index].tasks.pop_front();
                    self.world.report(id, step, block, right_answers(step, block));
                }
                Some(Task::Compute { step, replica, credit: false }) => {
                    let waiter = self.world.ask_credit(id, step, replica);
                    self.workers[index].doing = Doing::Asking(waiter);
                }
                Some(Task::Compute { step, replica, credit: true }) => {
                    self.workers[index].tasks.pop_front();
                    self.push(id, step, replica);
                    if self.chance(10) {
                        self.push(id, step, replica);
                    }
                }
            },
        }
    }

    fn push(&mut self, worker: WorkerId, step: u64, replica: u32) {
        let outcome = self.world.push_this(contribution(worker, step, replica));
        let over = step < self.world.global_step();
        assert!(over || outcome.is_ok(), "{outcome:?}");
        assert!(!over || outcome != Ok(Outcome::Duplicate) || step + 1 == self.world.global_step());
    }

    fn obey(&mut self, index: usize, directive: Directive) {
        let worker = &mut self.workers[index];
        match directive {
            Directive::Run { step, assignments } => {
                assert!(step.0 <= self.world.global_step());
                worker.tasks.extend(assignments.iter().map(|leased| Task::Compute {
                    step: step.0,
                    replica: leased.replica.0,
                    credit: leased.credit,
                }));
            }
            Directive::Evaluate { step, blocks } => {
                let task = |block: &hw2_common::ids::BlockId| Task::Evaluate {
                    step: step.0,
                    block: block.0,
                };
                worker.tasks.extend(blocks.iter().map(task));
            }
            Directive::Wait(_) | Directive::Stop { .. } => {}
            Directive::Rejoin(_) => {
                self.world.alive.remove(&worker.id.expect("it asked"));
                *worker = Worker::default();
            }
        }
    }
}

fn right_answers(step: u64, block: u32) -> u32 {
    (step as u32 * 5 + block) % 3
}

/// The progress at the end of the run, and how often a lease was given anew.
fn play(job: Job, workers: u32, faults: u32, seed: u64) -> (Progress, u64) {
    let max_steps = job.config.max_steps;
    let mut world = World::new(job);
    (world.commits_at_once, world.saves_at_once) = (false, false);
    let workers = (0..workers).map(|_| Worker::default()).collect();
    let mut schedule = Schedule {
        world,
        workers,
        ghosts: Vec::new(),
        faults_left: faults,
        commits_done: 0,
        saves_done: 0,
        seed,
        drawn: 0,
    };
    for _ in 0..ACTIONS_MAX {
        schedule.act();
        if schedule.world.coordinator.over().is_some() {
            break;
        }
    }
    let world = schedule.world;
    let status = world.coordinator.status(world.now);
    let over = world.coordinator.over();
    assert_eq!(over.map(|(ending, _)| ending), Some(Ending::Finished), "{status:#?}");
    let steps: Vec<u64> = world.commits.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, (0..max_steps).collect::<Vec<_>>(), "each step once");
    (world.coordinator.progress().clone(), world.releases())
}

fn any_job(replicas: u32, window: u32) -> Job {
    let mut job = job();
    job.config.replicas = replicas;
    job.config.cluster.push_window = window;
    job.config.optimizer.lr_patience = 1;
    job
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_schedule_ends_and_ends_the_same(
        replicas in 1_u32..6,
        window in 0_u32..4,
        workers in 1_u32..7,
        faults in 0_u32..40,
        seed: u64,
    ) {
        let (calm, releases) = play(any_job(replicas, 0), 1, 0, 1);
        prop_assert_eq!(releases, 0);
        let (progress, _) = play(any_job(replicas, window), workers, faults, seed);
        prop_assert_eq!(progress, calm);
    }
}

#[test]
fn the_schedules_do_lose_leases_and_meet_narrow_windows() {
    let releases: u64 = (0..20).map(|seed| play(any_job(4, 1), 4, 30, seed).1).sum();
    assert!(releases > 50, "{releases}");
}

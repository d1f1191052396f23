//! The next state while its step is under way, made chunk by chunk as the contributions arrive.
//!
//! A chunk is made as soon as every replica's gradient of it is there, before it is known whether
//! the step will commit: so the update costs no time of its own. What is made is provisional. When
//! a push is cut off, what was made of its chunks is dropped and made again from another's.
//!
//! Bookkeeping without threads: methods return jobs, and take their results in. Who receives a
//! contribution is told here whether all of its chunks are good.

mod arriving;
mod job;

use std::collections::BTreeMap;
use std::sync::Arc;

use hw2_common::ids::{GlobalStep, ReplicaId};
use hw2_common::wire::Cut;
use tokio::sync::oneshot;

use self::arriving::Arriving;
pub(super) use self::job::{Done, Job};
use self::job::{Product, Task};
use super::addend::{Addend, Fault, Operand, Ticket};
use super::block::Block;
use super::pass::Pass;
use super::version::Version;

/// The step that is under way.
#[derive(Debug)]
pub(super) struct Draft {
    step: GlobalStep,
    pass: Pass,
    cut: Cut,
    lanes: Vec<Lane>,
    replicas: Vec<Replica>,
    arriving: BTreeMap<Ticket, Arriving>,
    /// Counts the times that work was dropped: results of an earlier attempt are stale.
    attempt: u64,
    version: Arc<Version>,
}

/// One chunk's way to the next state.
#[derive(Debug, Default)]
struct Lane {
    /// Of the gradients of the replicas below `summed`, in replica order.
    sum: Option<Arc<Addend>>,
    summed: usize,
    work: Work,
}

#[derive(Debug, Default)]
enum Work {
    #[default]
    Idle,
    Summing,
    Updating,
    Made(Arc<Block>),
}

/// The contributions of one replica.
#[derive(Debug, Default)]
struct Replica {
    /// The one whose chunks are used.
    leading: Option<Ticket>,
    /// The BN statistics of the one that counts.
    statistics: Option<Vec<f32>>,
}

impl Draft {
    /// Of `step`, if it makes the update of `pass` over `replicas` contributions.
    pub(super) fn new(step: GlobalStep, pass: Pass, replicas: u32, cut: Cut) -> Self {
        let chunks = cut.ranges().len();
        Self {
            step,
            pass,
            cut,
            lanes: (0..chunks).map(|_| Lane::default()).collect(),
            replicas: (0..replicas).map(|_| Replica::default()).collect(),
            arriving: BTreeMap::new(),
            attempt: 0,
            version: Arc::new(Version::empty(step.next(), chunks)),
        }
    }

    /// The step that is under way.
    pub(super) fn step(&self) -> GlobalStep {
        self.step
    }

    /// The weights of the next step so far.
    pub(super) fn version(&self) -> &Arc<Version> {
        &self.version
    }

    /// A contribution begins to arrive; gives where its verdict will come. One of a replica that
    /// counts already is inspected like any other, and not kept.
    pub(super) fn begin(
        &mut self,
        ticket: Ticket,
        replica: ReplicaId,
    ) -> oneshot::Receiver<Result<(), Fault>> {
        let index = replica.0 as usize;
        self.replicas[index].leading.get_or_insert(ticket);
        let (arriving, verdict) = Arriving::new(index, self.lanes.len());
        self.arriving.insert(ticket, arriving);
        verdict
    }

    /// A chunk of a contribution is there. The first job that reads it, which is among those
    /// returned, finds out whether it is good; what is made of it until then is as provisional as
    /// all else.
    pub(super) fn put(
        &mut self,
        ticket: Ticket,
        lane: usize,
        gradient: Addend,
    ) -> impl Iterator<Item = Job> + use<> {
        let (mut update, mut inspection) = (None, None);
        if let Some(arriving) = self.arriving.get_mut(&ticket) {
            arriving.put(lane, gradient);
            let Replica { leading, statistics } = &self.replicas[arriving.replica];
            let (leads, counts) = (*leading == Some(ticket), statistics.is_some());
            if leads && arriving.is_good() {
                update = self.advance(lane);
            }
            inspection = self.inspection(ticket, lane);
            if counts && !leads {
                self.free(ticket, lane);
            }
        }
        update.into_iter().chain(inspection)
    }

    /// Of a chunk that no job reads yet.
    fn inspection(&mut self, ticket: Ticket, lane: usize) -> Option<Job> {
        let operand = self.arriving.get_mut(&ticket)?.unread(lane, ticket)?;
        let task = Task::Inspect(Box::new(operand));
        Some(Job { step: self.step, attempt: self.attempt, lane, task })
    }

    /// A contribution that does not count is gone, and what was made with it.
    pub(super) fn withdraw(&mut self, ticket: Ticket) -> Vec<Job> {
        let Some(Arriving { replica, .. }) = self.arriving.get(&ticket) else { return Vec::new() };
        let replica = *replica;
        let counts = self.replicas[replica].statistics.is_some();
        let leads = self.replicas[replica].leading == Some(ticket);
        if counts && leads {
            return Vec::new();
        }
        self.arriving.remove(&ticket);
        if !leads {
            return Vec::new();
        }
        let other = self.arriving.iter().find(|(_, other)| other.replica == replica);
        let other = other.map(|(ticket, _)| *ticket);
        self.lead(replica, other)
    }

    /// A contribution that is complete counts as that of its replica.
    pub(super) fn count(&mut self, ticket: Ticket, statistics: Vec<f32>) -> Vec<Job> {
        let Arriving { replica, .. } = self.arriving[&ticket];
        let jobs = match self.replicas[replica].leading == Some(ticket) {
            true => Vec::new(),
            false => self.lead(replica, Some(ticket)),
        };
        self.replicas[replica].statistics = Some(statistics);
        // The others are compared with it, and need no memory for that.
        let others = self.arriving.iter_mut().filter(|(other, _)| **other != ticket);
        others.filter(|(_, it)| it.replica == replica).for_each(|(_, it)| it.free_all());
        jobs.into_iter().chain(self.advance_all()).collect()
    }

    /// Takes the result of a job in.
    pub(super) fn done(&mut self, done: Done) -> Option<Job> {
        let Done { step, attempt, lane: index, verdicts, made } = done;
        if step != self.step {
            return None;
        }
        let is_good = verdicts.iter().all(|verdict| verdict.result.is_ok());
        for verdict in verdicts {
            if let Some(arriving) = self.arriving.get_mut(&verdict.ticket) {
                arriving.inspected(index, verdict.result);
            }
        }
        let lane = &mut self.lanes[index];
        match made {
            Product::Nothing => return None,
            // What counts is not withdrawn: a sum is never stale.
            Product::Sum(sum) => {
                lane.sum = Some(Arc::new(Addend::Computed(sum)));
                lane.work = Work::Idle;
            }
            Product::Block(_) if attempt != self.attempt => return None,
            Product::Block(_) if !is_good => lane.work = Work::Idle,
            Product::Block(block) => {
                let block = Arc::new(block);
                self.version.set(index, block.weights_chunk(self.cut.ranges()[index].start));
                lane.work = Work::Made(block);
                self.free_last(index);
            }
        }
        self.advance(index)
    }

    /// When one replica alone can still be withdrawn, what is made is made again only without its
    /// chunk, which can go.
    fn free_last(&mut self, lane: usize) {
        let mut open = self.replicas.iter().filter(|replica| replica.statistics.is_none());
        if let (Some(Replica { leading: Some(ticket), .. }), None) = (open.next(), open.next()) {
            let ticket = *ticket;
            self.free(ticket, lane);
        }
    }

    /// Whether every chunk of the next state is made.
    pub(super) fn is_made(&self) -> bool {
        self.lanes.iter().all(|lane| matches!(lane.work, Work::Made(_)))
    }

    /// The next state.
    ///
    /// # Panics
    /// If it is not made.
    pub(super) fn blocks(&self) -> Vec<Arc<Block>> {
        let made = |lane: &Lane| match &lane.work {
            Work::Made(block) => Arc::clone(block),
            _ => panic!("a chunk that is not made"),
        };
        self.lanes.iter().map(made).collect()
    }

    /// The mean of the BN statistics, added in replica order.
    ///
    /// # Panics
    /// If a contribution is missing.
    pub(super) fn mean_statistics(&self) -> Vec<f32> {
        let all = self
            .replicas
            .iter()
            .map(|replica| replica.statistics.as_deref().expect("a step commits whole"));
        let mut sum: Vec<f32> = Vec::new();
        for statistics in all {
            match sum.is_empty() {
                true => sum.extend_from_slice(statistics),
                false => sum.iter_mut().zip(statistics).for_each(|(a, b)| *a += b),
            }
        }
        sum.iter_mut().for_each(|value| *value /= self.replicas.len() as f32);
        sum
    }

    /// From now on the chunks of `ticket` are used for `replica`: what was made of others goes.
    fn lead(&mut self, replica: usize, ticket: Option<Ticket>) -> Vec<Job> {
        self.replicas[replica].leading = ticket;
        self.attempt += 1;
        self.version = Arc::new(Version::empty(self.step.next(), self.lanes.len()));
        for lane in &mut self.lanes {
            if matches!(lane.work, Work::Updating | Work::Made(_)) {
                lane.work = Work::Idle;
            }
        }
        self.advance_all().collect()
    }

    fn advance_all(&mut self) -> impl Iterator<Item = Job> + use<'_> {
        (0..self.lanes.len()).filter_map(|lane| self.advance(lane))
    }

    /// What can be done for one chunk now.
    fn advance(&mut self, index: usize) -> Option<Job> {
        if !matches!(self.lanes[index].work, Work::Idle) {
            return None;
        }
        let task = loop {
            let summed = self.lanes[index].summed;
            let others = summed..self.replicas.len();
            if others.clone().all(|replica| self.has(replica, index)) {
                let sum = self.lanes[index].sum.clone().map(Operand::known);
                let others = others.filter_map(|replica| self.operand(replica, index));
                let operands = sum.into_iter().chain(others).collect();
                self.lanes[index].work = Work::Updating;
                break Task::Update(self.pass, operands);
            }
            // What counts and has all lower ones before it is added now, to free its memory.
            let gradient = self.take_counted(summed, index)?;
            let lane = &mut self.lanes[index];
            lane.summed += 1;
            match lane.sum.take() {
                None => lane.sum = Some(gradient),
                Some(sum) => {
                    lane.work = Work::Summing;
                    break Task::Sum(sum, gradient);
                }
            }
        };
        Some(Job { step: self.step, attempt: self.attempt, lane: index, task })
    }

    fn free(&mut self, ticket: Ticket, lane: usize) {
        if let Some(arriving) = self.arriving.get_mut(&ticket) {
            arriving.take(lane);
        }
    }

    /// Whether the chunk of the contribution that leads is there.
    fn has(&self, replica: usize, lane: usize) -> bool {
        let leading =
            self.replicas[replica].leading.and_then(|leading| self.arriving.get(&leading));
        leading.is_some_and(|arriving| arriving.has(lane))
    }

    /// The chunk of the contribution that leads, for a job.
    fn operand(&mut self, replica: usize, lane: usize) -> Option<Operand> {
        let leading = self.replicas[replica].leading?;
        self.arriving.get_mut(&leading)?.operand(lane, leading)
    }

    fn take_counted(&mut self, replica: usize, lane: usize) -> Option<Arc<Addend>> {
        let Replica { leading, statistics } = &self.replicas[replica];
        statistics.as_ref()?;
        let leading = leading.as_ref().expect("what counts leads");
        self.arriving.get_mut(leading).expect("it is kept").take(lane)
    }
}

#[cfg(test)]
mod tests;

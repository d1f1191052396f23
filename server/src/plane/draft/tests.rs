use super::*;
use crate::coordinator::Update;
use crate::plane::pool::Pool;
use hw2_common::config::{Config, WireFormat};
use hw2_common::wire::{WireError, chunks};
use hw2_proto::v1::{Chunk, VectorKind};

const CHUNKS: usize = 2;

/// A draft whose jobs are done at once, or kept.
struct Bench {
    draft: Draft,
    pool: Pool,
    blocks: Vec<Block>,
    pass: Pass,
    kept: Option<Vec<Job>>,
}

impl Bench {
    fn new(replicas: u32) -> Self {
        let pool = Pool::default();
        let cut = Cut::whole(hw2_common::wire::CHUNK_VALUES + 3);
        let update = Update { number: 3, learning_rate: 0.1 };
        let pass = Pass::new(&Config { replicas, ..Config::default() }, update);
        let block = |len: usize| {
            let vectors = [0.5, 0.1, 0.2, 0.4].map(|value| vec![value; len]);
            Block::new(vectors.each_ref().map(Vec::as_slice), WireFormat::F32, &pool)
        };
        let blocks = cut.ranges().iter().map(|range| block(range.len())).collect();
        let draft = Draft::new(GlobalStep(5), pass, replicas, cut);
        Self { draft, pool, blocks, pass, kept: None }
    }

    fn gradient(&self, value: f32, lane: usize) -> Addend {
        let values = vec![value; self.draft.cut.ranges()[lane].len()];
        let start = self.draft.cut.ranges()[lane].start;
        let checksums = hw2_common::wire::checksums(&values);
        let mut chunks = chunks(VectorKind::Gradient, 0, &Arc::new(values), &checksums);
        let chunk = chunks.next().unwrap();
        Addend::Received(Chunk { start: start as u64, ..chunk }, WireFormat::F32)
    }

    fn begin(&mut self, ticket: u64, replica: u32) -> oneshot::Receiver<Result<(), Fault>> {
        self.draft.begin(Ticket(ticket), ReplicaId(replica))
    }

    fn put(&mut self, ticket: u64, value: f32, lane: usize) {
        let gradient = self.gradient(value, lane);
        self.receive(ticket, gradient, lane);
    }

    fn receive(&mut self, ticket: u64, gradient: Addend, lane: usize) {
        let jobs = self.draft.put(Ticket(ticket), lane, gradient);
        self.work(jobs);
    }

    fn push(&mut self, ticket: u64, replica: u32, value: f32) {
        self.begin(ticket, replica);
        (0..CHUNKS).rev().for_each(|lane| self.put(ticket, value, lane));
        self.count(ticket);
    }

    fn count(&mut self, ticket: u64) {
        let jobs = self.draft.count(Ticket(ticket), vec![ticket as f32]);
        self.work(jobs);
    }

    fn withdraw(&mut self, ticket: u64) {
        let jobs = self.draft.withdraw(Ticket(ticket));
        self.work(jobs);
    }

    fn work(&mut self, jobs: impl IntoIterator<Item = Job>) {
        let mut jobs: Vec<Job> = jobs.into_iter().collect();
        if let Some(kept) = &mut self.kept {
            return kept.append(&mut jobs);
        }
        while let Some(job) = jobs.pop() {
            let done = self.run(job);
            jobs.extend(self.draft.done(done));
        }
    }

    fn run(&self, job: Job) -> Done {
        let lane = job.lane();
        job.run(&self.blocks[lane], &self.pool)
    }

    /// Whether the next state is that of these gradients, by replica.
    fn made_of(&self, gradients: &[f32]) -> bool {
        if !self.draft.is_made() {
            return false;
        }
        let blocks = self.draft.blocks();
        blocks.iter().enumerate().all(|(lane, block)| {
            let addend = |value: &f32| Arc::new(self.gradient(*value, lane));
            let mut operands: Vec<_> = gradients.iter().map(addend).map(Operand::known).collect();
            let expected = self.pass.run(&self.blocks[lane], &mut operands, &self.pool);
            let vectors = |block: &Block| {
                let Block { weights, moment1, moment2, ema, .. } = block;
                [&**weights, moment1, moment2, &*ema.of(weights)].map(|vector| vector.to_vec())
            };
            vectors(block) == vectors(&expected)
        })
    }
}

#[test]
fn contributions_are_added_in_replica_order_whatever_order_they_arrive_in() {
    // Exact in this order only: (1e8 + 1) - 1e8 is 0 in f32.
    let gradients = [1e8, -1e8, 1.0];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
        let mut bench = Bench::new(3);
        for replica in order {
            assert!(!bench.draft.is_made());
            bench.push(replica.into(), replica, gradients[replica as usize]);
        }
        assert!(bench.made_of(&gradients), "{order:?}");
        assert_eq!(bench.draft.mean_statistics(), [1.0]);
    }
}

#[test]
fn a_chunk_is_made_when_the_last_gradient_of_it_is_there() {
    let mut bench = Bench::new(2);
    let mut reading = bench.draft.version().read();
    bench.begin(7, 1);
    bench.put(7, 0.5, 1);
    bench.begin(8, 0);
    bench.put(8, 0.25, 0);
    assert!(matches!(reading.next(), crate::plane::Next::Later));
    bench.put(8, 0.25, 1);
    assert!(matches!(reading.next(), crate::plane::Next::Chunk(_)));
    bench.put(7, 0.5, 0);
    assert!(bench.made_of(&[0.25, 0.5]));
}

#[test]
fn what_was_made_with_a_push_that_is_cut_off_is_made_again() {
    let mut bench = Bench::new(2);
    bench.push(1, 0, 0.25);
    bench.begin(2, 1);
    bench.put(2, 9.0, 1);
    let mut reading = bench.draft.version().read();
    bench.withdraw(2);
    assert!(matches!(reading.next(), crate::plane::Next::Gone));
    bench.push(3, 1, 0.5);
    assert!(bench.made_of(&[0.25, 0.5]));
}

#[test]
fn the_chunks_of_a_second_push_wait_until_they_are_needed() {
    let mut bench = Bench::new(1);
    bench.begin(1, 0);
    bench.begin(2, 0);
    (0..CHUNKS).for_each(|lane| bench.put(2, 0.5, lane));
    assert!(!bench.draft.is_made());
    bench.put(1, 9.0, 0);
    bench.withdraw(1);
    assert!(bench.made_of(&[0.5]));
    let mut bench = Bench::new(1);
    bench.begin(1, 0);
    bench.put(1, 9.0, 0);
    bench.push(2, 0, 0.5);
    assert!(bench.made_of(&[0.5]), "the one that counts is the one that is used");
    bench.withdraw(1);
    bench.withdraw(2);
    assert!(bench.made_of(&[0.5]), "what counts is not withdrawn");
    // What comes late is inspected, and not kept.
    for (ticket, value) in [(3, 0.5), (4, 1e20)] {
        let mut verdict = bench.begin(ticket, 0);
        (0..CHUNKS).for_each(|lane| bench.put(ticket, value, lane));
        let expected = (value == 1e20).then_some(Fault::Unfit { index: 0, value });
        assert_eq!(verdict.try_recv(), Ok(expected.map_or(Ok(()), Err)));
        assert!(!bench.draft.arriving[&Ticket(ticket)].has(0));
    }
    assert!(bench.made_of(&[0.5]));
}

#[test]
fn a_late_result_of_what_was_withdrawn_is_dropped() {
    let mut bench = Bench::new(1);
    bench.kept = Some(Vec::new());
    bench.begin(1, 0);
    bench.put(1, 9.0, 0);
    let late = bench.kept.take().unwrap().pop().unwrap();
    let late = bench.run(late);
    bench.withdraw(1);
    bench.push(2, 0, 0.5);
    assert!(bench.draft.done(late).is_none());
    assert!(bench.made_of(&[0.5]));
}

#[test]
fn the_memory_of_what_was_added_is_free() {
    let mut bench = Bench::new(4);
    (0..3).for_each(|replica| bench.push(replica.into(), replica, 1.0));
    let has = |arriving: &Arriving| (0..CHUNKS).any(|lane| arriving.has(lane));
    assert!(!bench.draft.arriving.values().any(has));
    bench.push(3, 3, 1.0);
    assert!(bench.made_of(&[1.0; 4]));
}

#[test]
fn every_chunk_is_inspected_once_by_the_first_job_that_reads_it() {
    let mut bench = Bench::new(2);
    bench.kept = Some(Vec::new());
    let mut verdicts = [bench.begin(1, 0), bench.begin(2, 1), bench.begin(3, 1)];
    let kept = |bench: &mut Bench| bench.kept.take().unwrap();
    // Nothing can be made of these for now.
    (0..CHUNKS).for_each(|lane| bench.put(1, 0.5, lane));
    (0..CHUNKS).for_each(|lane| bench.put(3, 9.0, lane));
    let inspections = kept(&mut bench);
    assert_eq!(inspections.len(), 2 * CHUNKS);
    assert!(inspections.iter().all(Job::is_inspection));
    bench.kept = Some(Vec::new());
    (0..CHUNKS).for_each(|lane| bench.put(2, 0.25, lane));
    let updates = kept(&mut bench);
    assert_eq!(updates.len(), CHUNKS);
    assert!(!updates.iter().any(Job::is_inspection));
    assert!(verdicts.iter_mut().all(|verdict| verdict.try_recv().is_err()));
    let dones: Vec<_> = updates.into_iter().map(|job| bench.run(job)).collect();
    assert!(dones.iter().all(|done| done.verdicts.len() == 1));
    dones.into_iter().for_each(|done| assert!(bench.draft.done(done).is_none()));
    assert_eq!(verdicts[1].try_recv(), Ok(Ok(())));
    bench.work(inspections);
    assert_eq!(
        verdicts.map(|mut verdict| verdict.try_recv().ok()),
        [Some(Ok(())), None, Some(Ok(()))]
    );
    assert!(bench.made_of(&[0.5, 0.25]));
}

#[test]
fn a_chunk_that_is_not_good_is_named_and_nothing_is_made_of_it() {
    let start = hw2_common::wire::CHUNK_VALUES;
    let unfit = |value| Err(Fault::Unfit { index: start, value });
    for (value, expected) in [(1e20, unfit(1e20)), (f32::INFINITY, unfit(f32::INFINITY))] {
        // Of the one that leads, and of one that waits.
        for leads in [true, false] {
            let mut bench = Bench::new(1);
            let other = (!leads).then(|| bench.begin(9, 0));
            let mut verdict = bench.begin(1, 0);
            bench.put(1, 0.5, 0);
            bench.put(1, value, 1);
            assert_eq!(verdict.try_recv(), Ok(expected.clone()));
            assert!(!bench.draft.is_made());
            bench.withdraw(1);
            drop(other);
            bench.push(2, 0, 0.25);
            assert!(bench.made_of(&[0.25]));
        }
    }
    let mut bench = Bench::new(1);
    let mut verdict = bench.begin(1, 0);
    let Addend::Received(mut chunk, wire) = bench.gradient(0.5, 0) else { panic!("it arrived") };
    let found = std::mem::replace(&mut chunk.crc32c, 7);
    bench.receive(1, Addend::Received(chunk, wire), 0);
    let error = WireError::Corrupt { start: 0, sent: 7, found };
    assert_eq!(verdict.try_recv(), Ok(Err(Fault::Corrupt(error))));
    bench.put(1, 0.5, 1);
    assert!(!bench.draft.is_made());
    bench.withdraw(1);
    bench.push(2, 0, 0.25);
    assert!(bench.made_of(&[0.25]));
}

#[test]
fn what_is_made_with_a_bad_chunk_is_made_again_without_it() {
    let bad = |index| Ok(Err(Fault::Unfit { index, value: f32::INFINITY }));
    // The bad one is the last of two replicas: the update finds it out.
    let mut bench = Bench::new(2);
    bench.push(1, 0, 0.5);
    let mut verdict = bench.begin(2, 1);
    bench.put(2, f32::INFINITY, 1);
    assert!(verdict.try_recv().is_err(), "of several, the first in the vector is named");
    bench.put(2, f32::INFINITY, 0);
    assert_eq!(verdict.try_recv(), bad(0));
    bench.withdraw(2);
    bench.push(3, 1, 0.25);
    assert!(bench.made_of(&[0.5, 0.25]));
    // An update that was given up finds it out when another has used the chunk.
    let mut bench = Bench::new(2);
    bench.kept = Some(Vec::new());
    let mut verdict = bench.begin(1, 0);
    bench.begin(2, 1);
    (0..CHUNKS).for_each(|lane| bench.put(2, 9.0, lane));
    (0..CHUNKS).for_each(|lane| bench.put(1, f32::INFINITY, lane));
    let late = bench.kept.take().unwrap();
    bench.withdraw(2);
    bench.push(3, 1, 0.25);
    assert!(bench.draft.is_made());
    bench.work(late);
    assert_eq!(verdict.try_recv(), bad(0));
    bench.withdraw(1);
    bench.push(4, 0, 0.5);
    assert!(bench.made_of(&[0.5, 0.25]));
}

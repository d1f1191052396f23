//! The data plane: everything that touches tensors, computed on threads of its own; only a chunk
//! that nothing can be made of yet is inspected by the thread that brings it.
//!
//! It does what the coordinator ordered and decides nothing. What it does beforehand, the update of
//! chunks whose gradients are all there, leaves no trace when the order never comes.

mod addend;
mod ahead;
mod block;
mod draft;
mod ema;
mod optimizer;
mod pass;
mod past;
mod pool;
mod staging;
mod strips;
mod threads;
mod version;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use hw2_common::ids::{GlobalStep, VersionId};
use hw2_common::job::Job;
use hw2_common::state::{Flat, Vectors};
use hw2_common::trace;
use hw2_common::wire::{self, Cut};
use hw2_proto::v1::VectorKind;
use tokio::sync::watch;

use crate::coordinator::Update;
pub(crate) use addend::{Fault, first_unfit};
use block::Block;
use draft::Draft;
use pass::Pass;
use pool::Pool;
pub(crate) use staging::{Staging, Tensors};
use threads::Threads;
use version::Versions;
pub(crate) use version::{Next, Reading, Version};

/// More threads than this gain nothing: the work is bound by memory.
const THREADS_MAX: usize = 8;

/// The running data plane. Clones lead to the same one.
#[derive(Clone)]
pub(crate) struct Plane(Arc<Shared>);

struct Shared {
    job: Job,
    cut: Cut,
    pool: Pool,
    threads: Threads,
    tickets: AtomicU64,
    state: Mutex<State>,
    /// Told when [`Plane::offer`] may have another answer.
    changes: watch::Sender<()>,
    /// Called after each commit.
    committed: Box<dyn Fn() + Send + Sync>,
}

struct State {
    blocks: Vec<Arc<Block>>,
    /// BN running statistics.
    buffers: Flat,
    /// As they are sent.
    versions: Versions,
    /// The step that is under way, if any.
    draft: Option<Draft>,
    /// Whether it is to commit when all of it is made.
    committing: bool,
}

/// A plane that may be gone.
pub(crate) struct PlaneRef(Weak<Shared>);

impl PlaneRef {
    /// As [`Plane::offer`].
    pub(crate) fn offer(&self, version: VersionId) -> Offer {
        self.0.upgrade().map_or(Offer::Nothing, |shared| Plane(shared).offer(version))
    }
}

/// What there is of a version.
pub(crate) enum Offer {
    /// It is part of the state.
    Committed(Arc<Version>),
    /// The step under way makes it, if it commits.
    Provisional(Arc<Version>),
    /// The step that makes it is still to begin.
    Later,
    /// It is not there any more, or not in sight.
    Nothing,
}

/// The state of one moment, shared and not copied.
pub(crate) struct Snapshot {
    blocks: Vec<Arc<Block>>,
    buffers: Flat,
}

impl Plane {
    /// Begins with the vectors of `step`, those parts of them that `cut` has. Calls `committed`
    /// after each commit.
    pub(crate) fn start(
        job: &Job,
        cut: Cut,
        step: GlobalStep,
        vectors: Vectors,
        committed: impl Fn() + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let (pool, first) = (Pool::default(), cut.values().start);
        let block = |range: &std::ops::Range<usize>| {
            let Vectors { weights, moment1, moment2, ema, .. } = &vectors;
            let range = range.start - first..range.end - first;
            let vectors = [weights, moment1, moment2, ema].map(|vector| &vector[range.clone()]);
            Arc::new(Block::new(vectors, job.config.wire, &pool))
        };
        let blocks: Vec<_> = cut.ranges().iter().map(block).collect();
        // The flat vectors are not needed any more.
        let buffers = vectors.buffers;
        let versions = versions(job, &cut, step, None, &blocks, &buffers);
        let state = State { blocks, buffers, versions, draft: None, committing: false };
        let count = std::thread::available_parallelism()?.get().min(THREADS_MAX);
        Ok(Self(Arc::new(Shared {
            job: job.clone(),
            cut,
            pool,
            threads: Threads::start(count)?,
            tickets: AtomicU64::new(0),
            state: Mutex::new(state),
            changes: watch::Sender::new(()),
            committed: Box::new(committed),
        })))
    }

    /// `step` is under way; if it commits it makes `update`.
    pub(crate) fn begin(&self, step: GlobalStep, update: Update) {
        let config = &self.0.job.config;
        let pass = Pass::new(config, update);
        let draft = Draft::new(step, pass, config.replicas, self.0.cut.clone());
        let mut state = self.0.lock();
        state.draft = Some(draft);
        // The evaluation is over: the memory of its EMA may be used again.
        state.versions.evaluation = None;
        drop(state);
        self.0.changes.send_replace(());
    }

    /// A contribution counts.
    ///
    /// # Panics
    /// If it is not one to the step under way, or not the first of its replica.
    pub(crate) fn count(&self, tensors: Tensors) {
        let Tensors { gradient, statistics } = tensors;
        let ticket = gradient.keep();
        let mut state = self.0.lock();
        let draft = state.draft.as_mut().expect("what counts is of the step under way");
        let jobs = draft.count(ticket, statistics);
        drop(state);
        self.spawn(jobs);
    }

    /// The step under way is given up.
    pub(crate) fn discard(&self) {
        let mut state = self.0.lock();
        state.draft = None;
        state.committing = false;
    }

    /// The step under way commits with its update, or without any, and the next step's vectors can
    /// be pulled, at once or when they are made.
    pub(crate) fn commit(&self, step: GlobalStep, makes_update: bool) {
        let mut state = self.0.lock();
        let is_done = match makes_update {
            true => {
                state.committing = true;
                self.0.finish(&mut state)
            }
            false => {
                state.draft = None;
                self.0.publish(&mut state, step.next(), None);
                true
            }
        };
        drop(state);
        self.0.tell(is_done);
    }

    /// The state as it is now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let State { blocks, buffers, .. } = &*self.0.lock();
        Snapshot { blocks: blocks.clone(), buffers: Arc::clone(buffers) }
    }

    /// What there is of `version` now.
    pub(crate) fn offer(&self, version: VersionId) -> Offer {
        let state = self.0.lock();
        let Versions { weights, evaluation } = &state.versions;
        let draft = state.draft.as_ref().map(Draft::version);
        match version {
            VersionId::Weights(step) if step == weights.step => {
                Offer::Committed(Arc::clone(weights))
            }
            VersionId::Weights(step) if step == weights.step.next() => match draft {
                Some(draft) => Offer::Provisional(Arc::clone(draft)),
                None => Offer::Later,
            },
            VersionId::Weights(_) => Offer::Nothing,
            VersionId::Ema(step) => match evaluation {
                Some(evaluation) if evaluation.step == step => {
                    Offer::Committed(Arc::clone(evaluation))
                }
                _ => Offer::Nothing,
            },
        }
    }

    /// For those that must not keep it, once its term is over.
    pub(crate) fn downgrade(&self) -> PlaneRef {
        PlaneRef(Arc::downgrade(&self.0))
    }

    /// Tells when [`Self::offer`] may have another answer.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    fn spawn(&self, jobs: impl IntoIterator<Item = draft::Job>) {
        for job in jobs {
            Arc::clone(&self.0).spawn(job);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn spawn(self: Arc<Self>, job: draft::Job) {
        // Not kept alive by its own work: a plane that is dropped need not finish it.
        let shared = Arc::downgrade(&self);
        self.threads.spawn(move || {
            if let Some(shared) = shared.upgrade() {
                work(&shared, job);
            }
        });
    }

    /// The state has become that of `step`; `weights` are those that the draft has sent.
    fn publish(&self, state: &mut State, step: GlobalStep, weights: Option<Arc<Version>>) {
        let State { blocks, buffers, .. } = &state;
        state.versions = versions(&self.job, &self.cut, step, weights, blocks, buffers);
    }

    /// Makes the draft the state, if it is to commit and is made. Says whether it did.
    fn finish(&self, state: &mut State) -> bool {
        if !state.committing {
            return false;
        }
        let Some(draft) = state.draft.take_if(|draft| draft.is_made()) else { return false };
        state.committing = false;
        state.blocks = draft.blocks();
        let momentum = self.job.config.optimizer.bn_momentum as f32;
        let means = draft.mean_statistics();
        for (running, mean) in Arc::make_mut(&mut state.buffers).iter_mut().zip(means) {
            *running += momentum * (mean - *running);
        }
        let weights = Arc::clone(draft.version());
        self.publish(state, draft.step().next(), Some(weights));
        true
    }

    /// Tells whom it concerns if a commit `is_done`.
    fn tell(&self, is_done: bool) {
        if is_done {
            self.changes.send_replace(());
            (self.committed)();
        }
    }
}

/// What can be pulled at `step`; `weights` where they are cut already.
fn versions(
    job: &Job,
    cut: &Cut,
    step: GlobalStep,
    weights: Option<Arc<Version>>,
    blocks: &[Arc<Block>],
    buffers: &Flat,
) -> Versions {
    let blocks = || blocks.iter().zip(cut.ranges().iter().map(|range| range.start));
    let weights = weights.unwrap_or_else(|| {
        let chunks = blocks().map(|(block, start)| block.weights_chunk(start));
        Arc::new(Version::whole(step, chunks))
    });
    let evaluation = job.eval_due(step).then(|| {
        let ema = blocks().map(|(block, start)| block.ema_chunk(start));
        let buffers = wire::chunks(VectorKind::Buffers, 0, buffers, &wire::checksums(buffers));
        Arc::new(Version::whole(step, ema.chain(buffers)))
    });
    Versions { weights, evaluation }
}

/// Does one job, and what follows from it.
fn work(shared: &Arc<Shared>, job: draft::Job) {
    let lane = job.lane();
    let block = Arc::clone(&shared.lock().blocks[lane]);
    let began = Instant::now();
    let done = job.run(&block, &shared.pool);
    trace::span(std::thread::current().name().unwrap_or("hw2-sum"), began, done.step(), || {
        format!("{} chunk {lane}", done.verb())
    });
    let mut state = shared.lock();
    let next = state.draft.as_mut().and_then(|draft| draft.done(done));
    let is_done = shared.finish(&mut state);
    drop(state);
    shared.tell(is_done);
    if let Some(job) = next {
        Arc::clone(shared).spawn(job);
    }
}

impl Snapshot {
    /// The flat vectors, copied chunk by chunk.
    pub(crate) fn vectors(self) -> Vectors {
        let len = self.blocks.iter().map(|block| block.weights.len()).sum();
        let [mut weights, mut moment1, mut moment2, mut ema] =
            [(); 4].map(|()| Vec::with_capacity(len));
        for block in self.blocks {
            weights.extend_from_slice(&block.weights);
            moment1.extend_from_slice(&block.moment1);
            moment2.extend_from_slice(&block.moment2);
            ema.extend_from_slice(&block.ema.of(&block.weights));
        }
        let [weights, moment1, moment2, ema] = [weights, moment1, moment2, ema].map(Arc::new);
        Vectors { weights, moment1, moment2, ema, buffers: self.buffers }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The data plane: everything that touches tensors, on a thread of its own.
//!
//! It does what the coordinator ordered, in that order, and decides nothing.

mod aggregate;
mod buffers;
mod ema;
mod optimizer;
mod store;
mod version;

use std::sync::mpsc;
use std::thread::JoinHandle;

use hw2_common::ids::{GlobalStep, ReplicaId};
use hw2_common::job::Job;
use hw2_common::state::Vectors;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::oneshot;

use crate::coordinator::Update;
use aggregate::Aggregate;
pub(crate) use aggregate::Tensors;
pub(crate) use buffers::Buffers;
use store::Store;
pub(crate) use version::{Version, Versions};

/// More threads than this gain nothing: the work is bound by memory.
const THREADS_MAX: usize = 8;

/// What the data plane is to do.
enum Order {
    Add(ReplicaId, Tensors),
    Discard,
    Commit(GlobalStep, Option<Update>),
    Copy(oneshot::Sender<Vectors>),
}

/// The running data plane; dropping it ends its thread.
pub(crate) struct Plane {
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Plane {
    /// Starts the thread, which calls `published` after each commit. Also returns the vectors it
    /// starts with, those of `step`.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(crate) fn start(
        job: &Job,
        step: GlobalStep,
        vectors: Vectors,
        buffers: Buffers,
        published: impl Fn(Versions) + Send + 'static,
    ) -> std::io::Result<(Self, Versions)> {
        let (orders, received) = mpsc::channel();
        let mut work = Work {
            threads: threads(std::thread::available_parallelism()?.get().min(THREADS_MAX)),
            aggregate: Aggregate::new(job.config.replicas, buffers.clone()),
            store: Store::new(vectors, buffers),
            job: job.clone(),
        };
        let first = work.publish(step);
        let thread = std::thread::Builder::new().name("hw2-plane".into()).spawn(move || {
            for order in received {
                if let Some(versions) = work.carry_out(order) {
                    published(versions);
                }
            }
        })?;
        Ok((Self { orders: Some(orders), thread: Some(thread) }, first))
    }

    /// Whether the thread is there to carry out orders.
    pub(crate) fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// A contribution counts.
    pub(crate) fn add(&self, replica: ReplicaId, tensors: Tensors) {
        self.order(Order::Add(replica, tensors));
    }

    /// The contributions of the current step are not wanted.
    pub(crate) fn discard(&self) {
        self.order(Order::Discard);
    }

    /// Makes the update of `step`, or none, and publishes the next step's vectors.
    pub(crate) fn commit(&self, step: GlobalStep, update: Option<Update>) {
        self.order(Order::Commit(step, update));
    }

    /// The vectors as they are after all that was ordered before, shared and not copied.
    pub(crate) fn copy(&self) -> oneshot::Receiver<Vectors> {
        let (answer, vectors) = oneshot::channel();
        self.order(Order::Copy(answer));
        vectors
    }

    fn order(&self, order: Order) {
        let orders = self.orders.as_ref().expect("there until drop");
        orders.send(order).expect("the data plane's thread has panicked");
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed where it happened.
            let _ = thread.join();
        }
    }
}

/// What the thread owns.
struct Work {
    job: Job,
    threads: ThreadPool,
    aggregate: Aggregate,
    store: Store,
}

impl Work {
    fn carry_out(&mut self, order: Order) -> Option<Versions> {
        match order {
            Order::Add(replica, tensors) => self.aggregate.add(&self.threads, replica, tensors),
            Order::Discard => self.aggregate.discard(),
            Order::Commit(step, update) => {
                match update {
                    None => self.aggregate.discard(),
                    Some(update) => {
                        let whole = self.aggregate.take();
                        let config = &self.job.config;
                        let (optimizer, replicas) = (&config.optimizer, config.replicas);
                        self.store.update(&self.threads, optimizer, update, replicas, whole);
                    }
                }
                return Some(self.publish(step.next()));
            }
            // Nobody waits for it when the server is being ended.
            Order::Copy(answer) => drop(answer.send(self.store.vectors().clone())),
        }
        None
    }

    fn publish(&self, step: GlobalStep) -> Versions {
        let Vectors { weights, ema, buffers, .. } = self.store.vectors();
        let evaluation = self.job.eval_due(step).then_some((ema, buffers));
        Versions::new(step, (weights, self.store.checksums()), evaluation)
    }
}

/// A pool of `count` threads for the loops over whole vectors.
fn threads(count: usize) -> ThreadPool {
    let pool = ThreadPoolBuilder::new().num_threads(count).thread_name(|i| format!("hw2-sum-{i}"));
    pool.build().expect("the system has threads left at the start")
}

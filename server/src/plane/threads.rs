//! Threads that do jobs in the order in which they were given.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

type Job = Box<dyn FnOnce() + Send>;

/// A few threads. They sleep when there is nothing to do: the cores are for those that bring the
/// next job. Dropping it ends each after the job that it is doing.
pub(super) struct Threads(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    /// There is a job, or there will be none.
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    is_closed: bool,
}

impl Threads {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(super) fn start(count: usize) -> std::io::Result<Self> {
        let threads = Self(Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new() }));
        for number in 0..count {
            let shared = Arc::clone(&threads.0);
            let name = format!("hw2-sum-{number}");
            std::thread::Builder::new().name(name).spawn(move || {
                let _guard = AbortOnPanic;
                while let Some(job) = shared.next() {
                    job();
                }
            })?;
        }
        Ok(threads)
    }

    /// Has the next thread that is free do `job`.
    pub(super) fn spawn(&self, job: impl FnOnce() + Send + 'static) {
        self.0.lock().jobs.push_back(Box::new(job));
        self.0.changed.notify_one();
    }
}

/// A job that panics is a defect of ours, and what it should have made would be waited for in vain:
/// a server that is gone is started again on its newest checkpoint.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // They are not waited for: one of them may be who drops it.
        let mut queue = self.0.lock();
        queue.is_closed = true;
        queue.jobs.clear();
        drop(queue);
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job; none after the last.
    fn next(&self) -> Option<Job> {
        let idle = |queue: &mut Queue| queue.jobs.is_empty() && !queue.is_closed;
        let queue = self.changed.wait_while(self.lock(), idle);
        queue.unwrap_or_else(PoisonError::into_inner).jobs.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn jobs_are_done_in_order() {
        let threads = Threads::start(1).unwrap();
        let (done, results) = mpsc::channel();
        for number in 0..100 {
            let done = done.clone();
            threads.spawn(move || done.send(number).unwrap());
        }
        drop(done);
        assert!(results.iter().eq(0..100));
    }

    #[test]
    fn one_of_the_threads_may_be_who_drops_them() {
        let threads = Arc::new(Threads::start(2).unwrap());
        let (done, results) = mpsc::channel();
        let last = Arc::clone(&threads);
        let (go, wait) = mpsc::channel();
        threads.spawn(move || {
            wait.recv().unwrap();
            drop(last);
            done.send(()).unwrap();
        });
        drop(threads);
        go.send(()).unwrap();
        results.recv().unwrap();
    }
}

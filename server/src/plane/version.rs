//! The vectors of one step as pulls stream them, cut into chunks once for all workers.

use std::sync::{Arc, OnceLock, Weak};

use hw2_common::ids::GlobalStep;
use hw2_proto::v1::Chunk;
use tokio::sync::watch;

/// What one kind of pull streams: chunks that are there, or are still being made. The chunks share
/// the state's memory, so a stream holds a version only weakly: then at most two versions of the
/// weights exist, however slowly a worker reads, and a version that comes to nothing is just
/// dropped.
#[derive(Debug)]
pub(crate) struct Version {
    /// Committed steps, this one's included.
    pub(crate) step: GlobalStep,
    /// In the order in which forward needs them.
    chunks: Vec<OnceLock<Chunk>>,
    /// Number of chunks that are there.
    made: watch::Sender<usize>,
}

/// Of the state.
#[derive(Clone, Debug)]
pub(super) struct Versions {
    pub(super) weights: Arc<Version>,
    /// EMA and running statistics; only while this step may be evaluated.
    pub(super) evaluation: Option<Arc<Version>>,
}

/// A version on its way to one worker.
#[derive(Debug)]
pub(crate) struct Reading {
    version: Weak<Version>,
    made: watch::Receiver<usize>,
    /// By chunk.
    sent: Vec<bool>,
}

/// What comes next of a version.
#[derive(Debug)]
pub(crate) enum Next {
    Chunk(Chunk),
    /// The others are still being made.
    Later,
    /// Every chunk was sent; it may still come to nothing.
    End,
    /// There is no such version any more.
    Gone,
}

impl Version {
    /// Of `chunks` chunks that are all to be made.
    pub(super) fn empty(step: GlobalStep, chunks: usize) -> Self {
        let chunks = (0..chunks).map(|_| OnceLock::new()).collect();
        Self { step, chunks, made: watch::Sender::new(0) }
    }

    /// Of chunks that are all there.
    pub(super) fn whole(step: GlobalStep, chunks: impl IntoIterator<Item = Chunk>) -> Self {
        let chunks: Vec<_> = chunks.into_iter().map(OnceLock::from).collect();
        Self { step, made: watch::Sender::new(chunks.len()), chunks }
    }

    /// A chunk is made.
    pub(super) fn set(&self, index: usize, chunk: Chunk) {
        self.chunks[index].set(chunk).expect("a chunk is made once");
        self.made.send_modify(|made| *made += 1);
    }

    /// Sends it to one worker.
    pub(crate) fn read(self: &Arc<Self>) -> Reading {
        Reading {
            version: Arc::downgrade(self),
            made: self.made.subscribe(),
            sent: vec![false; self.chunks.len()],
        }
    }
}

impl Reading {
    /// Whether it reads this version.
    pub(crate) fn is_of(&self, version: &Arc<Version>) -> bool {
        std::ptr::eq(self.version.as_ptr(), Arc::as_ptr(version))
    }

    /// The first chunk that is there and was not sent.
    pub(crate) fn next(&mut self) -> Next {
        // Before all else: what was sent completely may come to nothing too.
        let Some(version) = self.version.upgrade() else { return Next::Gone };
        if !self.sent.contains(&false) {
            return Next::End;
        }
        // Before the look: what is made after it wakes `changed`.
        self.made.mark_unchanged();
        let chunks = self.sent.iter_mut().zip(&version.chunks);
        let mut there = chunks
            .filter(|(sent, _)| !**sent)
            .filter_map(|(sent, chunk)| Some((sent, chunk.get()?)));
        match there.next() {
            Some((sent, chunk)) => {
                *sent = true;
                Next::Chunk(chunk.clone())
            }
            None => Next::Later,
        }
    }

    /// Waits until [`Self::next`] may have another answer.
    pub(crate) async fn changed(&mut self) {
        // An error says that the version is gone, which is a change.
        let _ = self.made.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(start: u64) -> Chunk {
        Chunk { start, ..Chunk::default() }
    }

    fn start_of(next: &Next) -> Option<u64> {
        match next {
            Next::Chunk(chunk) => Some(chunk.start),
            _ => None,
        }
    }

    #[tokio::test]
    async fn chunks_are_read_as_they_are_made_the_first_first() {
        let version = Arc::new(Version::empty(GlobalStep(3), 3));
        let mut reading = version.read();
        assert!(matches!(reading.next(), Next::Later));
        version.set(2, chunk(2));
        reading.changed().await;
        assert_eq!(start_of(&reading.next()), Some(2));
        version.set(1, chunk(1));
        version.set(0, chunk(0));
        reading.changed().await;
        let rest = [reading.next(), reading.next()].map(|next| start_of(&next));
        assert_eq!(rest, [Some(0), Some(1)]);
        assert!(matches!(reading.next(), Next::End));
    }

    #[tokio::test]
    async fn a_version_that_comes_to_nothing_is_gone() {
        let version = Arc::new(Version::empty(GlobalStep(3), 1));
        let mut reading = version.read();
        assert!(matches!(reading.next(), Next::Later));
        let other = Arc::new(Version::whole(GlobalStep(3), [chunk(0)]));
        assert!(reading.is_of(&version) && !reading.is_of(&other));
        drop(version);
        reading.changed().await;
        assert!(matches!(reading.next(), Next::Gone));
        let mut reading = other.read();
        assert_eq!(start_of(&reading.next()), Some(0));
        assert!(matches!(reading.next(), Next::End));
        drop(other);
        assert!(matches!(reading.next(), Next::Gone), "though all of it was sent");
    }
}

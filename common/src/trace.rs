//! What this process did when, for people to look at. Nothing is kept until somebody wants it.
//!
//! There is one record in a process, as there is one log.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::ids::GlobalStep;
use crate::wire::Cut;

/// Spans that are kept until they are taken: those of a minute of some thousand a second.
const SPANS_MAX: usize = 1 << 18;

/// Something that took its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Those of one track come one after the other, or lie within each other.
    pub track: String,
    /// What was done.
    pub name: String,
    /// Since the record began.
    pub start: Duration,
    /// Since the record began.
    pub end: Duration,
    /// The step that it belongs to.
    pub step: Option<GlobalStep>,
}

/// When the record began, if anything is kept.
static BEGAN: OnceLock<Instant> = OnceLock::new();
static SPANS: Mutex<Vec<Span>> = Mutex::new(Vec::new());

/// Keeps what is recorded from now on.
pub fn begin() {
    BEGAN.get_or_init(Instant::now);
}

/// Whether anything is kept.
pub fn is_on() -> bool {
    BEGAN.get().is_some()
}

/// Time since the record began; none before.
pub fn now() -> Option<Duration> {
    BEGAN.get().map(Instant::elapsed)
}

/// Something that was done from `began` until now.
pub fn span(
    track: &str,
    began: Instant,
    step: impl Into<Option<GlobalStep>>,
    name: impl FnOnce() -> String,
) {
    span_until(track, began..Instant::now(), step, name);
}

/// Something that is done in `time`.
pub fn span_until(
    track: &str,
    time: Range<Instant>,
    step: impl Into<Option<GlobalStep>>,
    name: impl FnOnce() -> String,
) {
    let Some(origin) = BEGAN.get() else { return };
    let (track, name, step) = (track.to_owned(), name(), step.into());
    let [start, end] = [time.start, time.end].map(|at| at.saturating_duration_since(*origin));
    let mut spans = spans();
    // Nobody takes them any more, or not often enough.
    if spans.len() < SPANS_MAX {
        spans.push(Span { track, name, start, end, step });
    }
}

/// What was recorded since it was taken last.
pub fn take() -> Vec<Span> {
    std::mem::take(&mut spans())
}

fn spans() -> MutexGuard<'static, Vec<Span>> {
    SPANS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records when each bucket of a vector passes somewhere, chunk by chunk.
#[derive(Debug)]
pub struct Buckets {
    track: String,
    verb: &'static str,
    step: Option<GlobalStep>,
    cut: Cut,
    /// When the first chunk passed, and how many have.
    passed: Vec<Option<(Instant, usize)>>,
}

impl Buckets {
    /// Of a vector that is cut so; none unless somebody wants it.
    pub fn new(
        cut: &Cut,
        verb: &'static str,
        step: impl Into<Option<GlobalStep>>,
        track: impl FnOnce() -> String,
    ) -> Option<Self> {
        let (step, passed) = (step.into(), || vec![None; cut.buckets().len()]);
        is_on().then(|| Self { track: track(), verb, step, cut: cut.clone(), passed: passed() })
    }

    /// Chunk number `chunk` passes.
    pub fn passes(&mut self, chunk: usize) {
        let mut buckets = self.cut.buckets().iter().zip(&mut self.passed);
        let found = buckets.find(|(bucket, _)| bucket.chunks.contains(&chunk));
        let Some((bucket, passed)) = found else { return };
        let (began, count) = passed.unwrap_or((Instant::now(), 0));
        *passed = Some((began, count + 1));
        if count + 1 == bucket.chunks.len() {
            // One bucket may overtake another.
            let track = format!("{}: {}", self.track, bucket.name);
            span(&track, began, self.step, || format!("{} {}", self.verb, bucket.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WireFormat;
    use crate::layout::ParamLayout;
    use crate::model::ModelSpec;

    /// The only test that touches the record of this process.
    #[test]
    fn a_bucket_is_one_span_from_its_first_chunk_to_its_last() {
        let layout = ParamLayout::new(&ModelSpec::default().network(65).unwrap());
        let cut = Cut::params(&layout, WireFormat::F32, 1);
        let of = || Buckets::new(&cut, "push", GlobalStep(3), || "a track".into());
        assert!(of().is_none() && now().is_none());
        begin();
        let mut buckets = of().unwrap();
        let chunks = 0..cut.ranges().len();
        let before = now().unwrap();
        chunks.rev().for_each(|chunk| buckets.passes(chunk));
        let spans = take();
        assert_eq!(spans.len(), layout.buckets().len());
        for (bucket, span) in cut.buckets().iter().zip(&spans) {
            assert_eq!(span.track, format!("a track: {}", bucket.name));
            assert_eq!(span.step, Some(GlobalStep(3)));
            assert_eq!(span.name, format!("push {}", bucket.name));
            assert!(before <= span.start && span.start <= span.end, "{span:?}");
        }
        assert_eq!(spans[0].name, "push dense1, softmax_linear");
        assert!(take().is_empty());
    }
}

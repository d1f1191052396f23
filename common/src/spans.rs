//! Tells the first server, for its trace, what this process does when: in that server's time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hw2_proto::v1;
use hw2_proto::v1::control_client::ControlClient;
use hw2_proto::v1::spans_report::Reporter;
use tokio::time::MissedTickBehavior;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::ids::Term;
use crate::trace::{self, Span};

/// Spans of one message, which must stay small.
const SPANS_MAX: usize = 4096;
/// Looks at the server's clock before each report but the last, which must not take long: of many
/// one is fast, whatever else goes on.
const LOOKS: usize = 8;
/// Time for one message and its answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Time for the last report.
const LAST_TIMEOUT: Duration = Duration::from_secs(1);

/// A way to tell the server. Clones are one.
#[derive(Clone, Debug)]
pub struct Spans {
    control: ControlClient<Channel>,
    term: Term,
    reporter: Reporter,
    /// One report at a time: who returns from one knows that all before it is there.
    reporting: Arc<tokio::sync::Mutex<()>>,
    clock: Arc<Mutex<Option<Clock>>>,
}

/// What the server's clock shows, from the exchange that took the shortest time: it lies in the
/// middle of that, give or take half of it (Cristian, "Probabilistic clock synchronization", 1989).
#[derive(Clone, Copy, Debug)]
struct Clock {
    round_trip: Duration,
    /// The server's time less this process's, in nanoseconds.
    ahead: i128,
}

impl Spans {
    /// Records from now on what `reporter` does in `term`.
    pub fn begin(control: ControlClient<Channel>, term: Term, reporter: Reporter) -> Self {
        trace::begin();
        Self { control, term, reporter, reporting: Arc::default(), clock: Arc::default() }
    }

    /// Reports again and again.
    pub async fn report_every(self, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let reporting = async {
                for _ in 0..LOOKS {
                    self.send(Vec::new()).await?;
                }
                self.report().await
            };
            if let Err(error) = reporting.await {
                tracing::debug!("spans: {error}");
            }
        }
    }

    /// Sends what was recorded since the last time.
    ///
    /// # Errors
    /// The server cannot be told.
    pub async fn report(&self) -> Result<(), Status> {
        let _turn = self.reporting.lock().await;
        if self.clock().is_none() {
            // For what time it is.
            self.send(Vec::new()).await?;
        }
        let Some(Clock { ahead, .. }) = self.clock() else { return Ok(()) };
        let spans: Vec<v1::Span> =
            trace::take().into_iter().filter_map(|span| translated(span, ahead)).collect();
        for spans in spans.chunks(SPANS_MAX) {
            self.send(spans.to_vec()).await?;
        }
        Ok(())
    }

    /// As [`Self::report`], by one that may be about to end: it has better to do than to complain,
    /// or to wait for long.
    pub async fn report_last(&self) {
        let _ = tokio::time::timeout(LAST_TIMEOUT, self.report()).await;
    }

    async fn send(&self, spans: Vec<v1::Span>) -> Result<(), Status> {
        let reporter = Some(self.reporter);
        let mut request = Request::new(v1::SpansReport { term: self.term.0, spans, reporter });
        request.set_timeout(TIMEOUT);
        let mut control = self.control.clone();
        let now = || trace::now().unwrap_or_default();
        let sent = now();
        let reply = control.report_spans(request).await?.into_inner();
        let round_trip = now() - sent;
        let middle = (sent + round_trip / 2).as_nanos() as i128;
        let ahead = i128::from(reply.now_ns) - middle;
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *clock {
            // It is worth less each time: clocks drift.
            Some(old) if old.round_trip <= round_trip => old.round_trip += old.round_trip / 64,
            _ => *clock = Some(Clock { round_trip, ahead }),
        }
        Ok(())
    }

    fn clock(&self) -> Option<Clock> {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In the time of a clock that is so far ahead; none if that was not running yet.
fn translated(span: Span, ahead: i128) -> Option<v1::Span> {
    let Span { track, name, start, end, step } = span;
    let there = |time: Duration| u64::try_from(time.as_nanos() as i128 + ahead).ok();
    let (start_ns, end_ns) = (there(start)?, there(end)?);
    Some(v1::Span { track, name, start_ns, end_ns, step: step.map(|step| step.0) })
}

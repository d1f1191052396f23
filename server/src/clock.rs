//! Time as the server sees it: given by the caller, so that a test owns it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tells the time since some moment; it never goes back.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Clock {
    /// The machine's monotonic clock.
    pub fn monotonic() -> Self {
        let began = Instant::now();
        Self::new(move || began.elapsed())
    }

    /// A clock that shows what `time` returns.
    pub fn new(time: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(time))
    }

    /// The time now.
    pub fn now(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({:?})", self.now())
    }
}

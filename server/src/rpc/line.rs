//! What is to be done when a connection closes.

use std::sync::{Arc, Mutex, PoisonError};

/// A connection, as the calls that come over it know it. Clones are of the same one.
#[derive(Clone)]
pub(super) struct Line(Arc<Mutex<Option<Vec<Tell>>>>);

/// Does what is to be done when it is dropped.
pub(super) struct HangUp(Line);

type Tell = Box<dyn FnOnce() + Send>;

impl Line {
    /// One that is open until its end is dropped.
    pub(super) fn open() -> (Self, HangUp) {
        let line = Self(Arc::new(Mutex::new(Some(Vec::new()))));
        (line.clone(), HangUp(line))
    }

    /// Calls `tell`, which must not wait for anything, when the connection closes; at once if it has.
    pub(super) fn on_close(&self, tell: impl FnOnce() + Send + 'static) {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(tells) => tells.push(Box::new(tell)),
            None => tell(),
        }
    }
}

impl Drop for HangUp {
    fn drop(&mut self) {
        let tells = self.0.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        tells.into_iter().flatten().for_each(|tell| tell());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn everybody_is_told_once_and_who_comes_late_at_once() {
        let told = Arc::new(AtomicU32::new(0));
        let tell = || {
            let told = Arc::clone(&told);
            move || _ = told.fetch_add(1, Ordering::Relaxed)
        };
        let (line, end) = Line::open();
        line.on_close(tell());
        line.clone().on_close(tell());
        assert_eq!(told.load(Ordering::Relaxed), 0);
        drop(end);
        assert_eq!(told.load(Ordering::Relaxed), 2);
        line.on_close(tell());
        assert_eq!(told.load(Ordering::Relaxed), 3);
    }
}

//! What is to be done when the other side of a connection closes it.

use std::sync::{Arc, Mutex, PoisonError};

/// A connection, as the calls that come over it know it. Clones are of the same one.
#[derive(Clone)]
pub(super) struct Line(Arc<Mutex<Option<Vec<Tell>>>>);

/// The connection itself, of which it knows why it ends.
pub(super) struct End {
    line: Line,
    is_hung_up: bool,
}

type Tell = Box<dyn FnOnce() + Send>;

impl Line {
    /// One that is open until its end is dropped.
    pub(super) fn open() -> (Self, End) {
        let line = Self(Arc::new(Mutex::new(Some(Vec::new()))));
        (line.clone(), End { line, is_hung_up: false })
    }

    /// Calls `tell`, which must not wait for anything, when the connection ends because the other
    /// side has closed it; at once if it has ended.
    pub(super) fn on_hang_up(&self, tell: impl FnOnce() + Send + 'static) {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(tells) => tells.push(Box::new(tell)),
            None => tell(),
        }
    }
}

impl End {
    /// The other side has closed it, or is no longer there.
    pub(super) fn hung_up(&mut self) {
        self.is_hung_up = true;
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let tells = self.line.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if self.is_hung_up {
            tells.into_iter().flatten().for_each(|tell| tell());
        }
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
        let (line, mut end) = Line::open();
        line.on_hang_up(tell());
        line.clone().on_hang_up(tell());
        end.hung_up();
        assert_eq!(told.load(Ordering::Relaxed), 0);
        drop(end);
        assert_eq!(told.load(Ordering::Relaxed), 2);
        line.on_hang_up(tell());
        assert_eq!(told.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn nobody_is_told_of_a_connection_that_this_side_closes() {
        let (line, end) = Line::open();
        line.on_hang_up(|| panic!("nobody hung up"));
        drop(end);
    }
}

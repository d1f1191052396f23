//! Which replicas may be pushed now: a window over the replicas, in replica order.

use hw2_common::ids::ReplicaId;

/// Memory for contributions that wait, and how many may wait whatever they take.
const HELD_BYTES: u64 = 64 << 20;
const HELD_MIN: u64 = 4;

/// Bounds the contributions that wait on the server for a lower replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Contributions held beyond the next one.
    beyond_next: u32,
}

impl Window {
    /// As `cluster.push_window` says. 0 is what a fixed amount of memory holds: little, since
    /// leases are dealt in turn.
    pub(crate) fn new(push_window: u32, contribution_bytes: u64) -> Self {
        let fitting = (HELD_BYTES / contribution_bytes.max(1)).max(HELD_MIN);
        let beyond_next = match push_window {
            0 => fitting.try_into().unwrap_or(u32::MAX),
            window => window,
        };
        Self { beyond_next }
    }

    /// Whether `replica` may be pushed while `next` is the lowest that is missing. The lowest
    /// always may, so that a window of any width lets a step end.
    pub(crate) fn admits(self, next: ReplicaId, replica: ReplicaId) -> bool {
        replica.0 <= next.0.saturating_add(self.beyond_next)
    }
}

/// What the server says to a worker that asks to push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Credit {
    /// Push.
    Push,
    /// Ask again; the reason names whom all wait for.
    Wait(String),
    /// Forget the gradient and ask what to do.
    Drop(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_moves_with_the_next_missing_replica() {
        let window = Window::new(2, 1);
        let admitted = |next| -> Vec<u32> {
            (0..6).filter(|r| window.admits(ReplicaId(next), ReplicaId(*r))).collect()
        };
        assert_eq!(admitted(0), [0, 1, 2]);
        assert_eq!(admitted(2), [0, 1, 2, 3, 4]);
        assert!(Window::new(u32::MAX, 1).admits(ReplicaId(5), ReplicaId(u32::MAX)));
    }

    #[test]
    fn by_default_it_is_what_some_memory_holds() {
        let beyond_next = |bytes| Window::new(0, bytes).beyond_next;
        assert_eq!(beyond_next(12 << 20), 5);
        assert_eq!(beyond_next(1 << 29), 4);
        assert_eq!(beyond_next(0), 64 << 20);
        assert_eq!(Window::new(1, 12 << 20).beyond_next, 1);
    }
}

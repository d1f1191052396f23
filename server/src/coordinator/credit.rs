//! Which replicas may be pushed now: a window over the replicas, in replica order.

use hw2_common::ids::ReplicaId;

/// Bounds the contributions that wait on the server for a lower replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Contributions held beyond the next one; 0 means all replicas.
    pub(crate) beyond_next: u32,
}

impl Window {
    /// Whether `replica` may be pushed while `next` is the lowest that is missing. The lowest
    /// always may, so that a window of any width lets a step end.
    pub(crate) fn admits(self, next: ReplicaId, replica: ReplicaId) -> bool {
        self.beyond_next == 0 || replica.0 <= next.0.saturating_add(self.beyond_next)
    }
}

/// What the server says to a worker that asks to push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Credit {
    /// Push.
    Push,
    /// Ask again; the reason names whom all wait for.
    Wait(String),
    /// Forget the gradient and pull.
    Drop(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_moves_with_the_next_missing_replica() {
        let window = Window { beyond_next: 2 };
        let admitted = |next| -> Vec<u32> {
            (0..6).filter(|r| window.admits(ReplicaId(next), ReplicaId(*r))).collect()
        };
        assert_eq!(admitted(0), [0, 1, 2]);
        assert_eq!(admitted(2), [0, 1, 2, 3, 4]);
        assert!(Window { beyond_next: 0 }.admits(ReplicaId(0), ReplicaId(u32::MAX)));
        assert!(Window { beyond_next: u32::MAX }.admits(ReplicaId(5), ReplicaId(u32::MAX)));
    }
}

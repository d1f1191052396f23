//! How far the forward pass of the next step can go, and has gone, on weights that are still
//! arriving.

use std::ops::Range;

use hw2_common::ids::Assignment;

/// A forward pass that may come to nothing: it begins again with each version of the weights, and
/// ends when its assignment is worked on, or another one.
pub(crate) struct Ahead {
    parts: Vec<Part>,
    begun: Option<Begun>,
}

/// Of the forward pass.
struct Part {
    /// Parameters that it is the first to need.
    params: Range<usize>,
    /// Values of them that are not there yet.
    missing: usize,
}

struct Begun {
    assignment: Assignment,
    /// Parts so far.
    parts: usize,
}

impl Ahead {
    /// Of a forward pass whose parts need these parameters, in order.
    pub(crate) fn new(parts: impl Iterator<Item = Range<usize>>) -> Self {
        let part = |params: Range<usize>| Part { missing: params.len(), params };
        Self { parts: parts.map(part).collect(), begun: None }
    }

    /// Other weights are on their way.
    pub(crate) fn renew(&mut self) {
        self.begun = None;
        self.parts.iter_mut().for_each(|part| part.missing = part.params.len());
    }

    /// Values from `start` on, which are all of one part, have arrived.
    pub(crate) fn arrived(&mut self, start: usize, values: usize) {
        let part = self.parts.iter_mut().find(|part| part.params.contains(&start));
        part.expect("chunks were checked").missing -= values;
    }

    /// Whether all that the next part needs is there.
    pub(crate) fn is_ready(&self) -> bool {
        let next = self.begun.as_ref().map_or(0, |begun| begun.parts);
        self.parts.get(next).is_some_and(|part| part.missing == 0)
    }

    /// The next part is being done for `assignment`. Says which one that is.
    pub(crate) fn begin(&mut self, assignment: Assignment) -> usize {
        let begun = self.begun.take().filter(|begun| begun.assignment == assignment);
        let part = begun.map_or(0, |begun| begun.parts);
        self.begun = Some(Begun { assignment, parts: part + 1 });
        part
    }

    /// `assignment` is worked on. Says how many parts of its forward pass have begun.
    pub(crate) fn end(&mut self, assignment: Assignment) -> usize {
        let begun = self.begun.take().filter(|begun| begun.assignment == assignment);
        // What is there by now is not of the version after it.
        self.renew();
        begun.map_or(0, |begun| begun.parts)
    }
}

#[cfg(test)]
mod tests {
    use hw2_common::ids::{GlobalStep, ReplicaId};

    use super::*;

    const NEXT: Assignment = Assignment { step: GlobalStep(3), replica: ReplicaId(1) };

    fn ahead() -> Ahead {
        Ahead::new([0..10, 10..40].into_iter())
    }

    #[test]
    fn a_part_waits_for_all_of_its_parameters() {
        let mut ahead = ahead();
        assert!(!ahead.is_ready());
        ahead.arrived(10, 20);
        ahead.arrived(4, 6);
        assert!(!ahead.is_ready());
        ahead.arrived(0, 4);
        assert!(ahead.is_ready());
        assert_eq!(ahead.begin(NEXT), 0);
        assert!(!ahead.is_ready());
        ahead.arrived(30, 10);
        assert!(ahead.is_ready());
        assert_eq!(ahead.begin(NEXT), 1);
        assert!(!ahead.is_ready(), "nothing is left");
        assert_eq!(ahead.end(NEXT), 2);
        assert_eq!(ahead.end(NEXT), 0);
        assert!(!ahead.is_ready(), "these weights are old now");
    }

    #[test]
    fn with_other_weights_it_begins_again() {
        let mut ahead = ahead();
        ahead.arrived(0, 10);
        ahead.begin(NEXT);
        ahead.renew();
        assert!(!ahead.is_ready());
        assert_eq!(ahead.end(NEXT), 0);
        ahead.arrived(0, 10);
        assert!(ahead.is_ready());
        assert_eq!(ahead.begin(NEXT), 0);
    }

    #[test]
    fn what_was_begun_for_another_assignment_is_of_no_use() {
        let mut ahead = ahead();
        ahead.arrived(0, 10);
        ahead.begin(NEXT);
        assert_eq!(ahead.end(Assignment { step: GlobalStep(4), ..NEXT }), 0);
        assert_eq!(ahead.end(NEXT), 0);
    }
}

//! Where buffers lie in one piece of memory: those that are never in use at once may share a place.

use std::ops::RangeInclusive;

use super::launch::number_bytes;
use crate::device::Request;

/// What the driver aligns memory to.
const ALIGNMENT: usize = 256;

/// Places for buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arena {
    /// Byte at which each buffer begins, in the order of the requests.
    pub(super) offsets: Vec<usize>,
    /// Bytes that hold what lasts; they come first.
    pub(super) lasting_bytes: usize,
    /// Bytes in all.
    pub(super) bytes: usize,
}

/// A buffer that has its place.
struct Placed {
    bytes: RangeInclusive<usize>,
    used: RangeInclusive<usize>,
}

impl Arena {
    /// Places all of `requests`: what lasts side by side, and of the others the largest first, each
    /// at the lowest place that is free while it is used.
    pub(super) fn new(requests: &[Request]) -> Self {
        let mut offsets = vec![0; requests.len()];
        let mut lasting_bytes = 0;
        let mut passing = Vec::new();
        for (number, request) in requests.iter().enumerate() {
            match &request.used {
                None => {
                    offsets[number] = lasting_bytes;
                    lasting_bytes += size(request);
                }
                Some(used) => passing.push((number, size(request), used.clone())),
            }
        }
        passing.sort_by_key(|(number, size, _)| (std::cmp::Reverse(*size), *number));
        let mut placed: Vec<Placed> = Vec::new();
        for (number, size, used) in passing {
            let offset = lowest_free(&placed, lasting_bytes, size, &used);
            offsets[number] = offset;
            let at = placed.partition_point(|other| *other.bytes.start() < offset);
            placed.insert(at, Placed { bytes: offset..=offset + size - 1, used });
        }
        let end = placed.iter().map(|placed| placed.bytes.end() + 1).max();
        Self { offsets, lasting_bytes, bytes: end.unwrap_or(lasting_bytes) }
    }
}

/// The lowest place for `size` bytes from `first` on which nothing uses while it is `used`.
/// `placed` are in the order of their places.
fn lowest_free(
    placed: &[Placed],
    first: usize,
    size: usize,
    used: &RangeInclusive<usize>,
) -> usize {
    let meets = |other: &&Placed| overlap(&other.used, used);
    let mut offset = first;
    for other in placed.iter().filter(meets) {
        if offset + size <= *other.bytes.start() {
            break;
        }
        offset = offset.max(other.bytes.end() + 1);
    }
    offset
}

fn overlap(a: &RangeInclusive<usize>, b: &RangeInclusive<usize>) -> bool {
    a.start() <= b.end() && b.start() <= a.end()
}

/// Bytes of a buffer, of which the driver has none that is empty.
fn size(request: &Request) -> usize {
    (number_bytes(request.format) * request.len).max(1).next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hw2_common::config::Precision;
    use hw2_common::model::{Block, ModelSpec};

    use super::*;
    use crate::device::{Format, Op};
    use crate::nn::Program;

    fn request(len: usize, used: Option<RangeInclusive<usize>>) -> Request {
        Request { len, format: Format::Full, used }
    }

    #[test]
    fn what_is_never_used_at_once_shares_a_place() {
        let used = [Some(0..=1), None, Some(2..=3), Some(1..=2), Some(3..=9)];
        let requests: Vec<Request> = used.into_iter().map(|used| request(64, used)).collect();
        let Arena { offsets, lasting_bytes, bytes } = Arena::new(&requests);
        assert_eq!(offsets, [256, 0, 256, 512, 512]);
        assert_eq!((lasting_bytes, bytes), (256, 768));
    }

    #[test]
    fn a_gap_that_is_large_enough_is_taken() {
        let requests = [
            request(300, Some(0..=9)),
            request(200, Some(0..=1)),
            request(100, Some(0..=9)),
            request(90, Some(5..=6)),
        ];
        let Arena { offsets, .. } = Arena::new(&requests);
        assert_eq!(offsets, [0, 1280, 2304, 1280]);
    }

    /// The buffers that `ops` use at once, as pairs of their numbers.
    fn pairs(ops: &[Op]) -> Vec<(usize, usize)> {
        let mut uses: BTreeMap<usize, RangeInclusive<usize>> = BTreeMap::new();
        for (place, op) in ops.iter().enumerate() {
            for operand in op.reads().into_iter().chain(op.writes()) {
                let number = operand.buffer.number();
                let first = uses.get(&number).map_or(place, |used| *used.start());
                uses.insert(number, first..=place);
            }
        }
        let at_once = |a: usize, b: usize| overlap(&uses[&a], &uses[&b]);
        let numbers: Vec<usize> = uses.keys().copied().collect();
        let later = |a: usize| numbers.iter().copied().filter(move |b| *b > a);
        numbers
            .iter()
            .flat_map(|a| later(*a).map(|b| (*a, b)))
            .filter(|(a, b)| at_once(*a, *b))
            .collect()
    }

    #[test]
    fn neither_training_nor_evaluation_meets_itself() {
        let mut other = ModelSpec { image_size: 30, ..ModelSpec::default() };
        let (name, branches) = ("mix".into(), [3, 4, 5, 2]);
        other.blocks.insert(2, Block::InceptionV1 { name, branches, bottleneck: 3 });
        for (spec, precision) in [(ModelSpec::default(), Precision::Fp32), (other, Precision::Bf16)]
        {
            let program = Program::new(&spec.network(7).unwrap(), 5, precision);
            let requests = program.requests();
            let Arena { offsets, lasting_bytes, bytes } = Arena::new(requests);
            let end = |number: usize| offsets[number] + size(&requests[number]);
            for dropout in [false, true] {
                for ops in [program.train(dropout).ops().collect(), program.evaluate(3)] {
                    for (a, b) in pairs(&ops) {
                        let apart = end(a) <= offsets[b] || end(b) <= offsets[a];
                        assert!(apart, "{:?} and {:?}", requests[a], requests[b]);
                    }
                }
            }
            let sum: usize = requests.iter().map(size).sum();
            let (shared, apart) = (bytes - lasting_bytes, sum - lasting_bytes);
            assert!(4 * shared < 3 * apart, "{shared} bytes of {apart}");
        }
    }
}

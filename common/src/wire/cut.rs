//! Where flat vectors are cut.

use std::ops::Range;
use std::sync::Arc;

use hw2_proto::v1::Chunk;

use super::CHUNK_VALUES;
use crate::config::WireFormat;
use crate::layout::ParamLayout;
use crate::shard::Shard;

/// More shards than a vector has chunks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the vectors of this network are cut into {chunks} chunks, too few for {shards} shards")]
pub struct TooManyShards {
    shards: usize,
    chunks: usize,
}

/// Where a flat vector, or a shard of one, is cut into chunks, in ascending order. Clones share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    chunks: Arc<[Range<usize>]>,
    /// Those of the first one are the last.
    buckets: Arc<[Bucket]>,
}

/// Chunks that are made together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The layers, for people.
    pub name: String,
    /// Their numbers.
    pub chunks: Range<usize>,
}

impl Cut {
    /// Of a vector of `len` values, which is one bucket.
    pub fn whole(len: usize) -> Self {
        Self::new(CHUNK_VALUES, [(0..len, "all".to_owned())])
    }

    /// Of the parameters of `layout`, for a run on so many servers whose format is `wire`: no chunk
    /// reaches beyond its bucket, so that it can travel as soon as that is made. The EMA is cut in
    /// the same places, and always travels in f32.
    pub fn params(layout: &ParamLayout, wire: WireFormat, shards: usize) -> Self {
        // As many bytes in either format; but the shares of several servers are fairer with more
        // chunks.
        let most = match (wire, shards) {
            (WireFormat::Bf16, 1) => 2 * CHUNK_VALUES,
            _ => CHUNK_VALUES,
        };
        let named = |range: Range<usize>| (range.clone(), layout.layers(&range));
        Self::new(most, layout.buckets().into_iter().map(named))
    }

    /// Of a vector of buckets, the last first, with their names, into chunks of at most `most`
    /// values.
    fn new(
        most: usize,
        buckets: impl IntoIterator<Item = (Range<usize>, String), IntoIter: DoubleEndedIterator>,
    ) -> Self {
        let (mut chunks, mut named) = (Vec::new(), Vec::new());
        for (range, name) in buckets.into_iter().rev() {
            let first = chunks.len();
            chunks.extend(chunk_ranges(range, most));
            named.push(Bucket { name, chunks: first..chunks.len() });
        }
        named.reverse();
        Self { chunks: chunks.into(), buckets: named.into() }
    }

    /// The chunks that `shard` has, in a row, as many values as the others have or nearly so.
    ///
    /// # Errors
    /// There are more shards than chunks.
    pub fn shard(&self, shard: Shard) -> Result<Self, TooManyShards> {
        let chunks = self.chunks.len();
        if shard.count > chunks {
            return Err(TooManyShards { shards: shard.count, chunks });
        }
        let mut taken = 0..0;
        for later in (shard.count - 1 - shard.index..shard.count).rev() {
            taken = taken.end..self.fair_end(taken.end, later);
        }
        let bucket = |Bucket { name, chunks }: &Bucket| {
            let chunks = chunks.start.max(taken.start)..chunks.end.min(taken.end);
            let chunks =
                chunks.start.saturating_sub(taken.start)..chunks.end.saturating_sub(taken.start);
            (!chunks.is_empty()).then(|| Bucket { name: name.clone(), chunks })
        };
        let buckets = self.buckets.iter().filter_map(bucket).collect();
        Ok(Self { chunks: self.chunks[taken].into(), buckets })
    }

    /// Where the next shard ends if it begins with chunk `start` and `later` ones come after it:
    /// where it has the part of what is left that is nearest to a fair one.
    fn fair_end(&self, start: usize, later: usize) -> usize {
        let begin = self.chunks[start].start;
        let fair = (self.values().end - begin) / (later + 1);
        let ends = start + 1..=self.chunks.len() - later;
        let unfairness = |end: &usize| (self.chunks[end - 1].end - begin).abs_diff(fair);
        ends.min_by_key(unfairness).expect("a chunk for each")
    }

    /// The ranges of the chunks.
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.chunks
    }

    /// In the order of backward.
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// The values of all chunks.
    pub fn values(&self) -> Range<usize> {
        match (self.chunks.first(), self.chunks.last()) {
            (Some(first), Some(last)) => first.start..last.end,
            _ => 0..0,
        }
    }

    /// Which of the chunks this is, whose numbers have so many bytes.
    pub(super) fn find(&self, chunk: &Chunk, value_bytes: usize) -> Option<usize> {
        let by_start = |range: &Range<usize>| range.start as u64;
        let index = self.chunks.binary_search_by_key(&chunk.start, by_start).ok()?;
        (chunk.values.len() == self.chunks[index].len() * value_bytes).then_some(index)
    }
}

/// Cuts `range` into ranges of at most `most`.
pub(super) fn chunk_ranges(range: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(most).map(move |start| start..(start + most).min(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ModelSpec;

    fn shards(cut: &Cut, count: usize) -> Vec<Cut> {
        (0..count).map(|index| cut.shard(Shard { index, count }).unwrap()).collect()
    }

    #[test]
    fn shards_are_contiguous_and_fair() {
        let layout = ParamLayout::new(&ModelSpec::default().network(65).unwrap());
        let cut = Cut::params(&layout, WireFormat::Bf16, 2);
        for count in 1..=cut.ranges().len() {
            let shards = shards(&cut, count);
            let ranges: Vec<_> = shards.iter().flat_map(|shard| shard.ranges()).cloned().collect();
            assert_eq!(ranges, cut.ranges(), "{count}");
            assert!(shards.iter().all(|shard| !shard.ranges().is_empty()), "{count}");
            if count <= 8 {
                let fair = layout.params.len() / count;
                let unfair = |shard: &Cut| shard.values().len().abs_diff(fair) > CHUNK_VALUES;
                assert!(!shards.iter().any(unfair), "{count}");
            }
        }
        let count = cut.ranges().len() + 1;
        assert!(cut.shard(Shard { index: 0, count }).is_err());
    }

    #[test]
    fn a_shard_has_its_part_of_each_bucket() {
        let cut =
            Cut::new(CHUNK_VALUES, [(10..20, "c".into()), (3..10, "b".into()), (0..3, "a".into())]);
        let [first, second] = [0, 1].map(|index| cut.shard(Shard { index, count: 2 }).unwrap());
        assert_eq!((first.values(), second.values()), (0..10, 10..20));
        let buckets = |cut: &Cut| -> Vec<(String, Range<usize>)> {
            cut.buckets().iter().map(|it| (it.name.clone(), it.chunks.clone())).collect()
        };
        assert_eq!(buckets(&first), [("b".into(), 1..2), ("a".into(), 0..1)]);
        assert_eq!(buckets(&second), [("c".into(), 0..1)]);
    }
}

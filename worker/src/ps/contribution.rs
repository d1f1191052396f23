//! One replica's gradient, BN statistics and result, kept until the server has acknowledged them.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use hw2_common::config::WireFormat;
use hw2_common::ids::Assignment;
use hw2_common::layout::ParamLayout;
use hw2_common::state::Flat;
use hw2_common::wire::{self, Cut};
use hw2_proto::v1::{self, PushMessage, VectorKind, push_message};

/// The memory of one contribution, used again for the next.
pub struct Contribution {
    wire: WireFormat,
    buckets: Vec<Bucket>,
    statistics: Flat,
    result: StepResult,
}

/// A bucket of the gradient.
struct Bucket {
    /// For people.
    layers: String,
    /// The ranges of its chunks.
    chunks: Vec<Range<usize>>,
    /// As they travel.
    values: Arc<Vec<u8>>,
    /// Of the chunks of the values.
    checksums: Vec<u32>,
}

impl Bucket {
    /// None of one without chunks.
    fn range(&self) -> Option<Range<usize>> {
        Some(self.chunks.first()?.start..self.chunks.last()?.end)
    }
}

/// Of one micro-batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepResult {
    /// L2 included.
    pub loss: f64,
    /// Images.
    pub samples: u32,
    /// Images whose label has the largest logit.
    pub top1: u32,
    /// Images that could not be decoded and were replaced.
    pub bad_images: Vec<String>,
}

impl Contribution {
    /// Room for the vectors of `layout`, of which the gradient travels in `wire` to so many
    /// servers.
    pub(super) fn new(layout: &ParamLayout, wire: WireFormat, shards: usize) -> Self {
        let cut = Cut::params(layout, wire, shards);
        let bucket = |bucket: &wire::Bucket| {
            let chunks = cut.ranges()[bucket.chunks.clone()].to_vec();
            let len: usize = chunks.iter().map(Range::len).sum();
            Bucket {
                layers: bucket.name.clone(),
                chunks,
                values: Arc::new(vec![0; len * wire.bytes()]),
                checksums: Vec::new(),
            }
        };
        let buckets = cut.buckets().iter().map(bucket).collect();
        Self {
            wire,
            buckets,
            statistics: Arc::new(vec![0.0; layout.buffers.len()]),
            result: StepResult::default(),
        }
    }

    /// Memory for the BN batch statistics, to be written before the push is finished.
    pub fn statistics_mut(&mut self) -> &mut [f32] {
        writable(&mut self.statistics)
    }

    /// Sets the result, before the push is finished.
    pub fn set_result(&mut self, result: StepResult) {
        self.result = result;
    }

    /// Copies the gradient of one bucket in. Every bucket must be set before it is sent.
    ///
    /// # Panics
    /// If `range` is not one of the layout's buckets.
    pub fn set_bucket(&mut self, range: Range<usize>, values: &[f32]) {
        let bucket = self.buckets.iter_mut().find(|bucket| bucket.range() == Some(range.clone()));
        let bucket = bucket.expect("backward works by the layout's buckets");
        let memory = writable(&mut bucket.values);
        bucket.checksums = wire::encode_with_checksums(&bucket.chunks, values, memory, self.wire);
    }

    pub(super) fn head(term: u64, worker: u64, assignment: Assignment) -> PushMessage {
        let Assignment { step, replica } = assignment;
        let head = v1::PushHead { term, worker, step: step.0, replica: replica.0 };
        PushMessage { message: Some(push_message::Message::Head(head)) }
    }

    /// The messages of one bucket, in the order of the layout's buckets; those of them that are
    /// among these `values`.
    pub(super) fn bucket(
        &self,
        index: usize,
        values: &Range<usize>,
    ) -> impl Iterator<Item = PushMessage> + use<> {
        let wanted = values.clone();
        let Bucket { chunks, values, checksums, .. } = &self.buckets[index];
        let bytes = Bytes::from_owner(Sent(Arc::clone(values)));
        wire::encoded_chunks(VectorKind::Gradient, chunks, &bytes, self.wire, checksums)
            .filter(move |chunk| wanted.contains(&(chunk.start as usize)))
            .map(message)
    }

    /// The layers of one bucket, for people.
    pub(super) fn layers(&self, index: usize) -> &str {
        &self.buckets[index].layers
    }

    pub(super) fn bucket_count(&self) -> usize {
        self.buckets.len()
    }

    /// The messages after the buckets.
    pub(super) fn tail(&self) -> impl Iterator<Item = PushMessage> + use<> {
        let StepResult { loss, samples, top1, bad_images } = self.result.clone();
        let result = v1::StepResult { loss, samples, top1, bad_images };
        let result = PushMessage { message: Some(push_message::Message::Result(result)) };
        let checksums = wire::checksums(&self.statistics);
        wire::chunks(VectorKind::BatchStatistics, 0, &self.statistics, &checksums)
            .map(message)
            .chain([result])
    }
}

fn message(chunk: v1::Chunk) -> PushMessage {
    PushMessage { message: Some(push_message::Message::Chunk(chunk)) }
}

/// Memory that the transport holds.
struct Sent(Arc<Vec<u8>>);

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The values of `shared`, in new memory while the transport still holds the old.
fn writable<T: Clone + Default>(shared: &mut Arc<Vec<T>>) -> &mut [T] {
    if Arc::get_mut(shared).is_none() {
        *shared = Arc::new(vec![T::default(); shared.len()]);
    }
    Arc::get_mut(shared).expect("not shared, or just made")
}

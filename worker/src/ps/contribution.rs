//! One replica's gradient, BN statistics and result, kept until the server has acknowledged them.

use std::ops::Range;
use std::sync::Arc;

use hw2_common::ids::Assignment;
use hw2_common::layout::ParamLayout;
use hw2_common::state::Flat;
use hw2_common::wire;
use hw2_proto::v1::{self, Part, PushMessage, push_message};

/// The memory of one contribution, used again for the next.
pub struct Contribution {
    buckets: Vec<Bucket>,
    statistics: Flat,
    result: StepResult,
}

/// A bucket of the gradient.
struct Bucket {
    /// For people.
    layers: String,
    range: Range<usize>,
    values: Flat,
    /// Of the chunks of the values.
    checksums: Vec<u32>,
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

/// What the server did with a contribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It counts.
    Counted,
    /// It was there already, with the same bits.
    Duplicate,
    /// It came too late to matter.
    Dropped,
}

impl Contribution {
    /// Room for the vectors of `layout`.
    pub fn new(layout: &ParamLayout) -> Self {
        let zeros = |len| Arc::new(vec![0.0; len]);
        let bucket = |range: Range<usize>| Bucket {
            layers: layout.layers(&range),
            values: zeros(range.len()),
            checksums: Vec::new(),
            range,
        };
        let buckets = layout.buckets().into_iter().map(bucket);
        Self {
            buckets: buckets.collect(),
            statistics: zeros(layout.buffers.len()),
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
        let bucket = self.buckets.iter_mut().find(|bucket| bucket.range == range);
        let bucket = bucket.expect("backward works by the layout's buckets");
        bucket.checksums = wire::copy_with_checksums(writable(&mut bucket.values), values);
    }

    pub(super) fn head(term: u64, worker: u64, assignment: Assignment) -> PushMessage {
        let Assignment { step, replica } = assignment;
        let head = v1::PushHead { term, worker, step: step.0, replica: replica.0 };
        PushMessage { message: Some(push_message::Message::Head(head)) }
    }

    /// The messages of one bucket, in the order of the layout's buckets.
    pub(super) fn bucket(&self, index: usize) -> impl Iterator<Item = PushMessage> + use<> {
        let Bucket { range, values, checksums, .. } = &self.buckets[index];
        messages(Part::Gradient, range.start, values, checksums)
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
        messages(Part::BatchStatistics, 0, &self.statistics, &checksums).chain([result])
    }
}

fn messages(
    part: Part,
    start: usize,
    values: &Flat,
    checksums: &[u32],
) -> impl Iterator<Item = PushMessage> + use<> {
    wire::chunks(part, start, values, checksums)
        .map(|chunk| PushMessage { message: Some(push_message::Message::Chunk(chunk)) })
}

/// The values of `flat`, in new memory while the transport still holds the old.
fn writable(flat: &mut Flat) -> &mut [f32] {
    if Arc::get_mut(flat).is_none() {
        *flat = Arc::new(vec![0.0; flat.len()]);
    }
    Arc::get_mut(flat).expect("not shared, or just made")
}

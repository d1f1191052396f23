//! Which version of the server's vectors a worker has.

use hw2_common::config::WireFormat;
use hw2_common::ids::GlobalStep;
use hw2_common::layout::ParamLayout;
use hw2_common::wire::{Arrivals, Cut, Values, WireError};
use hw2_proto::v1::{Chunk, Part};

use super::{Directive, PsError};

/// Takes in what pulls receive, where it is needed: there is no other copy of it.
pub trait Destination {
    /// Some values of a vector, as they arrived. They are part of no version yet: until the pull is
    /// over, what is computed with them may come to nothing.
    fn receive(&mut self, vector: Vector, start: usize, values: Values<'_>);

    /// A version begins to arrive: what was there, and what has arrived of another, is void.
    fn renew(&mut self);

    /// May compute with what has arrived, while more is waited for. Says whether it did.
    fn work_ahead(&mut self) -> bool;
}

/// A vector of a [`Destination`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vector {
    /// Parameters for training.
    Weights,
    /// Parameters for evaluation.
    Ema,
    /// BN running statistics.
    Buffers,
}

/// What the vectors of a destination hold: the weights of a step, or the EMA and running statistics
/// of one. Lives as long as a session: after an error a new one begins with nothing.
pub struct Held {
    version: Option<Version>,
    /// What is being received.
    arriving: Option<Kind>,
    /// Versions that have begun to arrive.
    begun: u64,
    wire: WireFormat,
    params: Arrivals,
    buffers: Arrivals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    kind: Kind,
    step: GlobalStep,
}

/// Where a chunk belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Of the versions that have begun to arrive.
    pub(super) version: u64,
    pub(super) vector: Vector,
    /// Number of the chunk in its vector.
    pub(super) chunk: usize,
    pub(super) format: WireFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Weights,
    Evaluation,
}

impl Held {
    /// No version of the vectors of `layout` yet, of which the weights travel in `wire`.
    pub fn new(layout: &ParamLayout, wire: WireFormat) -> Self {
        Self {
            version: None,
            arriving: None,
            begun: 0,
            wire,
            params: Arrivals::new(Cut::params(layout), wire),
            buffers: Arrivals::new(Cut::whole(layout.buffers.len()), wire),
        }
    }

    /// Where the parameters are cut.
    pub(super) fn cut(&self) -> &Cut {
        self.params.cut()
    }

    /// The step whose weights are held.
    pub(super) fn weights_step(&self) -> Option<GlobalStep> {
        self.step_of(Kind::Weights)
    }

    /// The step whose EMA and running statistics are held.
    pub(super) fn ema_step(&self) -> Option<GlobalStep> {
        self.step_of(Kind::Evaluation)
    }

    fn step_of(&self, kind: Kind) -> Option<GlobalStep> {
        self.version.filter(|version| version.kind == kind).map(|version| version.step)
    }

    /// Checks a chunk and tells where it belongs. The first one ends the version that was held:
    /// what arrives is provisional until [`Held::commit`].
    pub(super) fn receive(&mut self, chunk: &Chunk) -> Result<Place, WireError> {
        let format = self.wire.of(chunk.part());
        let (kind, vector) = match chunk.part() {
            Part::Weights => (Kind::Weights, Vector::Weights),
            Part::Ema => (Kind::Evaluation, Vector::Ema),
            Part::Buffers => (Kind::Evaluation, Vector::Buffers),
            _ => return Err(WireError::UnexpectedPart(chunk.part)),
        };
        if self.arriving != Some(kind) {
            self.withdraw();
            self.version = None;
            self.arriving = Some(kind);
            self.begun += 1;
        }
        let chunk = match vector {
            Vector::Weights | Vector::Ema => self.params.add(chunk)?,
            Vector::Buffers => self.buffers.add(chunk)?,
        };
        Ok(Place { version: self.begun, vector, chunk, format })
    }

    /// What has arrived came to nothing.
    pub(super) fn withdraw(&mut self) {
        self.arriving = None;
        self.params.clear();
        self.buffers.clear();
    }

    /// The pull ended in `directive`: what it needs is now whole, or was held before.
    pub(super) fn commit(&mut self, directive: &Directive) -> Result<(), PsError> {
        let needed = match *directive {
            Directive::Run { step, .. } => Some(Version { kind: Kind::Weights, step }),
            Directive::Evaluate { step, .. } => Some(Version { kind: Kind::Evaluation, step }),
            Directive::Wait(_) | Directive::Rejoin(_) | Directive::Stop { .. } => None,
        };
        if let Some(needed) = needed {
            if self.arriving == Some(needed.kind) {
                self.check_complete().map_err(|error| PsError::Protocol(error.to_string()))?;
                self.version = Some(needed);
            }
            if self.version != Some(needed) {
                let Version { kind, step } = needed;
                return Err(PsError::Protocol(format!(
                    "a directive for {step} without its {kind}"
                )));
            }
        }
        self.withdraw();
        Ok(())
    }

    fn check_complete(&self) -> Result<(), WireError> {
        self.params.check_complete()?;
        match self.arriving {
            Some(Kind::Evaluation) => self.buffers.check_complete(),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Weights => "weights",
            Self::Evaluation => "EMA",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hw2_common::model::{Block, ModelSpec};
    use hw2_common::wire;

    use super::*;

    const STEP: GlobalStep = GlobalStep(7);

    /// Of a network without running statistics.
    fn layout() -> ParamLayout {
        let blocks = vec![Block::SoftmaxLinear { name: "linear".into() }];
        let spec = ModelSpec { blocks, ..ModelSpec::default() };
        ParamLayout::new(&spec.network(3).unwrap())
    }

    fn chunks(layout: &ParamLayout, part: Part) -> Vec<Chunk> {
        let of_bucket = |bucket: std::ops::Range<usize>| {
            let values = Arc::new(vec![0.5; bucket.len()]);
            wire::chunks(part, bucket.start, &values, &wire::checksums(&values))
        };
        layout.buckets().into_iter().flat_map(of_bucket).collect()
    }

    fn receive_all(held: &mut Held, chunks: &[Chunk]) {
        chunks.iter().for_each(|chunk| assert!(held.receive(chunk).is_ok()));
    }

    fn run() -> Directive {
        Directive::Run { step: STEP, assignments: Vec::new() }
    }

    fn evaluate() -> Directive {
        Directive::Evaluate { step: STEP, blocks: Vec::new() }
    }

    #[test]
    fn a_network_without_running_statistics_is_whole_without_them() {
        let layout = layout();
        assert_eq!(layout.buffers.len(), 0);
        let mut held = Held::new(&layout, WireFormat::F32);
        receive_all(&mut held, &chunks(&layout, Part::Ema));
        held.commit(&evaluate()).unwrap();
        assert_eq!((held.ema_step(), held.weights_step()), (Some(STEP), None));
    }

    #[test]
    fn what_arrives_ends_what_was_held() {
        let layout = layout();
        let mut held = Held::new(&layout, WireFormat::F32);
        receive_all(&mut held, &chunks(&layout, Part::Weights));
        held.commit(&run()).unwrap();
        held.commit(&run()).unwrap();
        assert_eq!(held.weights_step(), Some(STEP));
        held.receive(&chunks(&layout, Part::Ema)[0]).unwrap();
        assert_eq!(held.weights_step(), None);
        held.withdraw();
        let error = held.commit(&run()).unwrap_err().to_string();
        assert!(error.contains("step 7 without its weights"), "{error}");
    }

    #[test]
    fn a_version_with_a_chunk_missing_is_none() {
        let layout = layout();
        let mut held = Held::new(&layout, WireFormat::F32);
        let mut chunks = chunks(&layout, Part::Weights);
        let last = chunks.pop().unwrap();
        receive_all(&mut held, &chunks);
        held.commit(&run()).unwrap_err();
        assert_eq!(held.weights_step(), None);
        held.receive(&last).unwrap();
        held.commit(&run()).unwrap();
    }
}

//! The versions of the server's vectors that a worker holds.

use hw2_common::ids::GlobalStep;
use hw2_common::layout::ParamLayout;
use hw2_common::wire::{Assembly, WireError};
use hw2_proto::v1::{Chunk, Part};

use super::{Directive, PsError};

/// Weights for training; EMA and running statistics for evaluation. Pulls write into the same
/// memory again and again. Lives as long as a session: after an error a new one begins with nothing.
pub struct Held {
    weights: Vector,
    ema: Vector,
    buffers: Vector,
    weights_step: Option<GlobalStep>,
    ema_step: Option<GlobalStep>,
}

/// Whole, or being received: then it holds no version.
enum Vector {
    Whole(Vec<f32>),
    Arriving(Assembly),
}

impl Held {
    /// Room for the vectors of `layout`; no version yet.
    pub fn new(layout: &ParamLayout) -> Self {
        let room = |len| Vector::Whole(vec![0.0; len]);
        Self {
            weights: room(layout.params.len()),
            ema: room(layout.params.len()),
            buffers: room(layout.buffers.len()),
            weights_step: None,
            ema_step: None,
        }
    }

    /// Parameters of [`Held::weights_step`].
    pub fn weights(&self) -> &[f32] {
        self.weights.whole()
    }

    /// EMA of the parameters of [`Held::ema_step`].
    pub fn ema(&self) -> &[f32] {
        self.ema.whole()
    }

    /// BN running statistics of [`Held::ema_step`].
    pub fn buffers(&self) -> &[f32] {
        self.buffers.whole()
    }

    /// The step whose weights are held.
    pub fn weights_step(&self) -> Option<GlobalStep> {
        self.weights_step
    }

    /// The step whose EMA and running statistics are held.
    pub fn ema_step(&self) -> Option<GlobalStep> {
        self.ema_step
    }

    /// Takes a chunk in. The first one of a part ends the version that was held: what arrives is
    /// provisional until [`Held::commit`].
    pub(super) fn receive(&mut self, chunk: &Chunk) -> Result<(), WireError> {
        let vector = match chunk.part() {
            Part::Weights => {
                self.weights_step = None;
                &mut self.weights
            }
            Part::Ema => {
                self.ema_step = None;
                &mut self.ema
            }
            Part::Buffers => {
                self.ema_step = None;
                &mut self.buffers
            }
            _ => return Err(WireError::UnexpectedPart(chunk.part)),
        };
        vector.arriving().add(chunk)
    }

    /// The pull ended in `directive`: what it needs is now whole, or was held before. What came for a
    /// directive that was then withdrawn is dropped.
    pub(super) fn commit(&mut self, directive: &Directive) -> Result<(), PsError> {
        let incomplete = |error: WireError| PsError::Protocol(error.to_string());
        match directive {
            Directive::Run { step, .. } => {
                if self.weights.finish().map_err(incomplete)? {
                    self.weights_step = Some(*step);
                }
                same(self.weights_step, *step, "weights")
            }
            Directive::Evaluate { step, .. } => {
                let ema = self.ema.finish().map_err(incomplete)?;
                if self.buffers.finish().map_err(incomplete)? && ema {
                    self.ema_step = Some(*step);
                }
                same(self.ema_step, *step, "EMA")
            }
            Directive::Wait(_) | Directive::Rejoin(_) | Directive::Stop { .. } => {
                for vector in [&mut self.weights, &mut self.ema, &mut self.buffers] {
                    vector.abandon();
                }
                Ok(())
            }
        }
    }
}

fn same(held: Option<GlobalStep>, step: GlobalStep, what: &str) -> Result<(), PsError> {
    match held == Some(step) {
        true => Ok(()),
        false => Err(PsError::Protocol(format!("a directive for {step} without its {what}"))),
    }
}

impl Vector {
    fn whole(&self) -> &[f32] {
        match self {
            Self::Whole(values) => values,
            Self::Arriving(_) => unreachable!("read between two pulls only"),
        }
    }

    fn arriving(&mut self) -> &mut Assembly {
        if let Self::Whole(values) = self {
            *self = Self::Arriving(Assembly::new(std::mem::take(values)));
        }
        match self {
            Self::Arriving(assembly) => assembly,
            Self::Whole(_) => unreachable!("replaced above"),
        }
    }

    /// Whether something arrived, which is whole now.
    fn finish(&mut self) -> Result<bool, WireError> {
        match std::mem::replace(self, Self::Whole(Vec::new())) {
            Self::Whole(values) => {
                *self = Self::Whole(values);
                Ok(false)
            }
            Self::Arriving(assembly) => {
                *self = Self::Whole(assembly.finish()?);
                Ok(true)
            }
        }
    }

    /// Drops what has arrived and keeps the memory.
    fn abandon(&mut self) {
        *self = match std::mem::replace(self, Self::Whole(Vec::new())) {
            Self::Arriving(assembly) => Self::Whole(assembly.abandon()),
            whole @ Self::Whole(_) => whole,
        };
    }
}

//! The versions of the server's vectors that a worker holds.

use hw2_common::ids::GlobalStep;
use hw2_common::layout::ParamLayout;
use hw2_common::wire::{Assembly, Cut, WireError};
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
struct Vector {
    cut: Cut,
    state: Arrival,
}

enum Arrival {
    Whole(Vec<f32>),
    Arriving(Assembly),
}

impl Held {
    /// Room for the vectors of `layout`; no version yet.
    pub fn new(layout: &ParamLayout) -> Self {
        let params = Cut::params(layout);
        Self {
            weights: Vector::new(params.clone()),
            ema: Vector::new(params),
            buffers: Vector::new(Cut::whole(layout.buffers.len())),
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

    /// What has arrived came to nothing.
    pub(super) fn withdraw(&mut self) {
        for vector in [&mut self.weights, &mut self.ema, &mut self.buffers] {
            vector.abandon();
        }
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
                self.withdraw();
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
    fn new(cut: Cut) -> Self {
        Self { state: Arrival::Whole(vec![0.0; cut.len()]), cut }
    }

    fn whole(&self) -> &[f32] {
        match &self.state {
            Arrival::Whole(values) => values,
            Arrival::Arriving(_) => unreachable!("read between two pulls only"),
        }
    }

    fn take(&mut self) -> Arrival {
        std::mem::replace(&mut self.state, Arrival::Whole(Vec::new()))
    }

    fn arriving(&mut self) -> &mut Assembly {
        if let Arrival::Whole(values) = &mut self.state {
            let assembly = Assembly::new(self.cut.clone(), std::mem::take(values));
            self.state = Arrival::Arriving(assembly);
        }
        match &mut self.state {
            Arrival::Arriving(assembly) => assembly,
            Arrival::Whole(_) => unreachable!("replaced above"),
        }
    }

    /// Whether it arrived and is whole now; of an empty vector nothing has to arrive.
    fn finish(&mut self) -> Result<bool, WireError> {
        let (values, arrived) = match self.take() {
            Arrival::Whole(values) => (values, self.cut.is_empty()),
            Arrival::Arriving(assembly) => (assembly.finish()?, true),
        };
        self.state = Arrival::Whole(values);
        Ok(arrived)
    }

    /// Drops what has arrived and keeps the memory.
    fn abandon(&mut self) {
        let values = match self.take() {
            Arrival::Arriving(assembly) => assembly.abandon(),
            Arrival::Whole(values) => values,
        };
        self.state = Arrival::Whole(values);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hw2_common::model::{Block, ModelSpec};
    use hw2_common::wire;

    use super::*;

    #[test]
    fn a_network_without_running_statistics_is_whole_without_them() {
        let blocks = vec![Block::SoftmaxLinear { name: "linear".into() }];
        let spec = ModelSpec { blocks, ..ModelSpec::default() };
        let layout = ParamLayout::new(&spec.network(3).unwrap());
        assert_eq!(layout.buffers.len(), 0);
        let mut held = Held::new(&layout);
        for bucket in layout.buckets() {
            let values = Arc::new(vec![0.5; bucket.len()]);
            for chunk in wire::chunks(Part::Ema, bucket.start, &values, &wire::checksums(&values)) {
                held.receive(&chunk).unwrap();
            }
        }
        let step = GlobalStep(0);
        held.commit(&Directive::Evaluate { step, blocks: Vec::new() }).unwrap();
        assert_eq!(held.ema_step(), Some(step));
    }
}

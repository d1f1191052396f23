//! A pull under way: weights arrive while this worker still computes with the old ones, and begins
//! to with the new.

use bytes::Bytes;
use futures_util::stream::iter;
use hw2_common::config::WireFormat;
use hw2_common::grpc::{self, Parcel};
use hw2_common::ids::{Term, VersionId};
use hw2_common::trace;
use hw2_common::wire::{Arrivals, Values, WireError};
use hw2_proto::v1::pull_message::Message;
use hw2_proto::v1::{self, Chunk, PullMessage, VectorKind, pull_request};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;

use super::servers::{Holding, Server};
use super::session::call;
use super::{Destination, PsError, Vector};

/// A pull that was begun: one version, from all servers at once.
pub(super) struct Pull {
    version: VersionId,
    arrivals: mpsc::UnboundedReceiver<Arrived>,
    /// What arrived before its place was free, in order.
    early: Vec<Arrived>,
    has_begun: bool,
    /// One for each server; whether what it sent is what the step came to.
    streams: Vec<AbortOnDropHandle<Result<bool, PsError>>>,
}

/// A chunk that was checked.
struct Arrived {
    vector: Vector,
    start: usize,
    values: Bytes,
    format: WireFormat,
}

/// What a server sends of a version, as far as it has arrived.
struct Expected {
    version: VersionId,
    wire: WireFormat,
    params: Arrivals,
    buffers: Arrivals,
}

impl Pull {
    /// Chunks are received and checked on the threads of the connections.
    pub(super) fn begin(servers: &[Server], term: Term, version: VersionId) -> Self {
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let request = v1::PullRequest {
            term: term.0,
            version: Some(match version {
                VersionId::Weights(step) => pull_request::Version::WeightsStep(step.0),
                VersionId::Ema(step) => pull_request::Version::EmaStep(step.0),
            }),
        };
        let stream = |server: &Server| {
            let (data, expected) = (server.data.clone(), Expected::new(version, &server.holding));
            let trace = match version {
                VersionId::Weights(step) => {
                    trace::Buckets::new(&server.holding.params, "pull", step, || {
                        format!("pull{}", server.holding.label())
                    })
                }
                VersionId::Ema(_) => None,
            };
            let receiving = receive(data, request, expected, arrived.clone(), trace);
            AbortOnDropHandle::new(server.io.spawn(receiving))
        };
        let streams = servers.iter().map(stream).collect();
        Self { version, arrivals, early: Vec::new(), has_begun: false, streams }
    }

    /// What is pulled.
    pub(super) fn version(&self) -> VersionId {
        self.version
    }

    /// Whether some of it has arrived, so that what was held before is void.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Whether nothing more will arrive.
    pub(super) fn is_over(&self) -> bool {
        self.streams.iter().all(|stream| stream.is_finished())
    }

    /// Hands over what has arrived of the vectors from number `start` on, which nothing computes
    /// with any more.
    pub(super) fn deliver(&mut self, destination: &mut impl Destination, start: usize) {
        while let Ok(arrived) = self.arrivals.try_recv() {
            self.note(arrived, destination);
        }
        for arrived in self.early.extract_if(.., |arrived| arrived.start >= start) {
            arrived.deliver(destination);
        }
    }

    /// Waits for the next chunk, which is then to be delivered; false when nothing more arrives.
    pub(super) async fn arrives(&mut self, destination: &mut impl Destination) -> bool {
        let arrived = self.arrivals.recv().await;
        let is_there = arrived.is_some();
        arrived.into_iter().for_each(|arrived| self.note(arrived, destination));
        is_there
    }

    /// The end, when nothing more arrives: whether this is what the step came to.
    pub(super) async fn end(self) -> Result<bool, PsError> {
        let mut is_committed = true;
        for stream in self.streams {
            is_committed &= stream.await.expect("a pull does not panic")?;
        }
        Ok(is_committed)
    }

    fn note(&mut self, arrived: Arrived, destination: &mut impl Destination) {
        if !std::mem::replace(&mut self.has_begun, true) {
            destination.renew();
        }
        self.early.push(arrived);
    }
}

impl Arrived {
    fn deliver(self, destination: &mut impl Destination) {
        let values = Values::new(&self.values, self.format);
        destination.receive(self.vector, self.start, values);
    }
}

impl Expected {
    fn new(version: VersionId, holding: &Holding) -> Self {
        let Holding { wire, params, buffers, .. } = holding;
        let [params, buffers] = [params, buffers].map(|cut| Arrivals::new(cut.clone(), *wire));
        Self { version, wire: *wire, params, buffers }
    }

    /// Checks a chunk. Says which of its vector it is, and of which vector.
    fn add(&mut self, chunk: &Chunk) -> Result<(usize, Vector), WireError> {
        Ok(match (self.version, chunk.kind()) {
            (VersionId::Weights(_), VectorKind::Weights) => {
                (self.params.add(chunk)?, Vector::Weights)
            }
            (VersionId::Ema(_), VectorKind::Ema) => (self.params.add(chunk)?, Vector::Ema),
            (VersionId::Ema(_), VectorKind::Buffers) => (self.buffers.add(chunk)?, Vector::Buffers),
            _ => return Err(WireError::UnexpectedKind(chunk.kind)),
        })
    }

    fn check_complete(&self) -> Result<(), WireError> {
        self.params.check_complete()?;
        match self.version {
            VersionId::Weights(_) => Ok(()),
            VersionId::Ema(_) => self.buffers.check_complete(),
        }
    }
}

/// Receives what one server sends. Says whether that is what the step came to.
async fn receive(
    data: Channel,
    request: v1::PullRequest,
    mut expected: Expected,
    arrived: mpsc::UnboundedSender<Arrived>,
    mut trace: Option<trace::Buckets>,
) -> Result<bool, PsError> {
    let wrong = |error: WireError| PsError::Protocol(error.to_string());
    let mut answer = call(data, grpc::PULL, iter([Parcel::new(&request)])).await?;
    while let Some(PullMessage { message }) = answer.message().await? {
        match message {
            Some(Message::Chunk(chunk)) => {
                let (number, vector) = expected.add(&chunk).map_err(wrong)?;
                trace.iter_mut().for_each(|trace| trace.passes(number));
                let format = expected.wire.of(chunk.kind());
                let (start, values) = (chunk.start as usize, chunk.values);
                // Nobody receives it any more when the session is being stopped.
                let _ = arrived.send(Arrived { vector, start, values, format });
            }
            Some(Message::Committed(v1::Committed {})) => {
                expected.check_complete().map_err(wrong)?;
                return Ok(true);
            }
            Some(Message::Withdrawn(v1::Withdrawn {})) => return Ok(false),
            None => return Err(PsError::Protocol("an empty message in a pull".into())),
        }
    }
    Err(PsError::Protocol("a pull that just ended".into()))
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Arc;

    use hw2_common::ids::GlobalStep;
    use hw2_common::layout::ParamLayout;
    use hw2_common::model::{Block, ModelSpec};
    use hw2_common::wire;

    use super::*;

    const STEP: GlobalStep = GlobalStep(7);

    /// What happened to it, in order.
    #[derive(Default)]
    struct Log(Vec<String>);

    impl Destination for Log {
        fn receive(&mut self, _: Vector, start: usize, _: Values<'_>) {
            self.0.push(format!("{start}"));
        }

        fn renew(&mut self) {
            self.0.push("renew".into());
        }

        fn work_ahead(&mut self) -> bool {
            false
        }
    }

    #[tokio::test]
    async fn what_arrives_waits_for_its_place() {
        let (sender, arrivals) = mpsc::unbounded_channel();
        let streams = [true, false].map(|is_committed| {
            AbortOnDropHandle::new(tokio::spawn(async move { Ok(is_committed) }))
        });
        let (version, early) = (VersionId::Weights(STEP), Vec::new());
        let mut pull = Pull { version, arrivals, early, has_begun: false, streams: streams.into() };
        let mut log = Log::default();
        let mut step = |pull: &mut Pull, arriving: &[usize], start| {
            for &start in arriving {
                let (values, format) = (Bytes::new(), WireFormat::F32);
                let arrived = Arrived { vector: Vector::Weights, start, values, format };
                assert!(sender.send(arrived).is_ok());
            }
            pull.deliver(&mut log, start);
            std::mem::take(&mut log.0)
        };
        assert!(step(&mut pull, &[], 0).is_empty() && !pull.has_begun());
        // Of the weights from 20 on nothing is needed any more, but those before are in use.
        assert_eq!(step(&mut pull, &[20, 5], 20), ["renew", "20"]);
        assert_eq!(step(&mut pull, &[30], 20), ["30"]);
        assert_eq!(step(&mut pull, &[7], 0), ["5", "7"]);
        drop(sender);
        assert!(!pull.arrives(&mut log).await);
        assert!(!pull.end().await.unwrap(), "one server has withdrawn its part");
    }

    /// Of a network without running statistics.
    fn layout() -> ParamLayout {
        let blocks = vec![Block::SoftmaxLinear { name: "linear".into() }];
        let spec = ModelSpec { blocks, ..ModelSpec::default() };
        ParamLayout::new(&spec.network(3).unwrap())
    }

    fn chunks(layout: &ParamLayout, kind: VectorKind) -> Vec<Chunk> {
        let of_bucket = |bucket: Range<usize>| {
            let values = Arc::new(vec![0.5; bucket.len()]);
            wire::chunks(kind, bucket.start, &values, &wire::checksums(&values))
        };
        layout.buckets().into_iter().flat_map(of_bucket).collect()
    }

    #[test]
    fn a_version_is_whole_when_all_its_chunks_are_there() {
        let layout = layout();
        assert_eq!(layout.buffers.len(), 0, "it is whole without running statistics");
        let holding = Holding::whole(&layout, WireFormat::F32);
        for (version, kind) in [
            (VersionId::Weights(STEP), VectorKind::Weights),
            (VersionId::Ema(STEP), VectorKind::Ema),
        ] {
            let mut expected = Expected::new(version, &holding);
            let mut chunks = chunks(&layout, kind);
            let last = chunks.pop().unwrap();
            chunks.iter().for_each(|chunk| assert!(expected.add(chunk).is_ok()));
            expected.check_complete().unwrap_err();
            let other = Chunk { kind: VectorKind::Gradient.into(), ..last.clone() };
            assert_eq!(expected.add(&other), Err(WireError::UnexpectedKind(other.kind)));
            expected.add(&last).unwrap();
            expected.check_complete().unwrap();
        }
    }
}

//! A pull under way: weights arrive while this worker still computes with the old ones, and begins
//! to with the new.

use bytes::Bytes;
use futures_util::stream::iter;
use hw2_common::config::WireFormat;
use hw2_common::grpc::{self, Parcel};
use hw2_common::trace;
use hw2_common::wire::Values;
use hw2_proto::v1::pull_message::Message;
use hw2_proto::v1::{self, PullMessage};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;

use super::held::Place;
use super::io_thread::IoThread;
use super::session::call;
use super::{Destination, Directive, Held, PsError, Vector};

/// A pull that was begun.
pub struct Pull {
    arrivals: mpsc::UnboundedReceiver<Arrived>,
    /// What arrived before its place was free, in order.
    early: Vec<Arrived>,
    /// What is arriving, of the versions that this pull has received.
    version: Option<u64>,
    answer: AbortOnDropHandle<Result<(Directive, Held), PsError>>,
}

/// A chunk that was checked.
struct Arrived {
    version: u64,
    vector: Vector,
    start: usize,
    values: Bytes,
    format: WireFormat,
}

impl Pull {
    /// Chunks are received and checked on `io`.
    pub(super) fn begin(
        io: &IoThread,
        data: Channel,
        request: v1::PullRequest,
        mut held: Held,
        mut trace: Option<trace::Buckets>,
    ) -> Self {
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let answer = AbortOnDropHandle::new(io.spawn(async move {
            let directive = receive(data, request, &mut held, &arrived, &mut trace).await?;
            Ok((directive, held))
        }));
        Self { arrivals, early: Vec::new(), version: None, answer }
    }

    /// Whether the server has said what to do, so that nobody has to wait for the end.
    pub fn is_answered(&self) -> bool {
        self.answer.is_finished()
    }

    /// Hands over what has arrived of the vectors from number `start` on, which nothing computes
    /// with any more.
    pub fn deliver(&mut self, destination: &mut impl Destination, start: usize) {
        while let Ok(arrived) = self.arrivals.try_recv() {
            self.note(arrived, destination);
        }
        for arrived in self.early.extract_if(.., |arrived| arrived.start >= start) {
            arrived.deliver(destination);
        }
    }

    /// Waits for the end and hands over everything; the destination may compute meanwhile.
    pub(super) async fn finish(
        mut self,
        destination: &mut impl Destination,
    ) -> Result<(Directive, Held), PsError> {
        loop {
            self.deliver(destination, 0);
            // What arrives while it computes takes its place before it goes on.
            if !self.is_answered() && destination.work_ahead() {
                continue;
            }
            let Some(arrived) = self.arrivals.recv().await else { break };
            self.note(arrived, destination);
        }
        self.answer.await.expect("a pull does not panic")
    }

    fn note(&mut self, arrived: Arrived, destination: &mut impl Destination) {
        if self.version != Some(arrived.version) {
            self.version = Some(arrived.version);
            self.early.clear();
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

/// Receives what the directive needs.
async fn receive(
    data: Channel,
    request: v1::PullRequest,
    held: &mut Held,
    arrived: &mpsc::UnboundedSender<Arrived>,
    trace: &mut Option<trace::Buckets>,
) -> Result<Directive, PsError> {
    let request = iter([Parcel::new(&request)]);
    let mut answer = call(data, grpc::PULL, request).await?;
    let mut passing = None;
    while let Some(PullMessage { message }) = answer.message().await? {
        match message {
            Some(Message::Chunk(chunk)) => {
                let place = held.receive(&chunk);
                let Place { version, vector, chunk: number, format } =
                    place.map_err(|error| PsError::Protocol(error.to_string()))?;
                if let (Some(trace), Vector::Weights) = (trace.as_mut(), vector) {
                    if passing.replace(version) != Some(version) {
                        trace.restart();
                    }
                    trace.passes(number);
                }
                let (start, values) = (chunk.start as usize, chunk.values);
                // Nobody receives it any more when the session is being stopped.
                let _ = arrived.send(Arrived { version, vector, start, values, format });
            }
            Some(Message::Withdrawn(v1::Withdrawn {})) => held.withdraw(),
            Some(Message::Directive(directive)) => {
                let directive = Directive::try_from(directive)?;
                held.commit(&directive)?;
                return Ok(directive);
            }
            None => return Err(PsError::Protocol("an empty message in a pull".into())),
        }
    }
    Err(PsError::Protocol("a pull that ended without a directive".into()))
}

#[cfg(test)]
mod tests {
    use hw2_common::layout::ParamLayout;
    use hw2_common::model::ModelSpec;

    use super::*;

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

        /// Once after each arrival.
        fn work_ahead(&mut self) -> bool {
            let works = self.0.last().is_some_and(|last| last != "work");
            if works {
                self.0.push("work".into());
            }
            works
        }
    }

    fn arrived(version: u64, start: usize) -> Arrived {
        let (values, format) = (Bytes::new(), WireFormat::F32);
        Arrived { version, vector: Vector::Weights, start, values, format }
    }

    #[tokio::test]
    async fn what_came_to_nothing_is_not_computed_with_any_more() {
        let (sender, arrivals) = mpsc::unbounded_channel();
        let layout = ParamLayout::new(&ModelSpec::default().network(2).unwrap());
        let (go, gone) = tokio::sync::oneshot::channel();
        let answer = AbortOnDropHandle::new(tokio::spawn(async move {
            gone.await.unwrap();
            Ok((Directive::Wait("a test".into()), Held::new(&layout, WireFormat::F32)))
        }));
        let mut pull = Pull { arrivals, early: Vec::new(), version: None, answer };
        let mut log = Log::default();
        let step = |pull: &mut Pull, log: &mut Log, chunks: &[(u64, usize)], start| {
            chunks.iter().for_each(|&(version, start)| {
                assert!(sender.send(arrived(version, start)).is_ok());
            });
            pull.deliver(log, start);
            std::mem::take(&mut log.0)
        };
        // Of the weights from 20 on nothing is needed any more, but those before are in use.
        assert_eq!(step(&mut pull, &mut log, &[(1, 20), (1, 5)], 20), ["renew", "20"]);
        assert_eq!(step(&mut pull, &mut log, &[(2, 30), (2, 6)], 20), ["renew", "30"]);
        assert_eq!(step(&mut pull, &mut log, &[(2, 20)], 20), ["20"]);
        assert!(sender.send(arrived(2, 7)).is_ok());
        let finishing = tokio::spawn(async move {
            let (directive, _) = pull.finish(&mut log).await.unwrap();
            (directive, log.0)
        });
        go.send(()).unwrap();
        drop(sender);
        let (directive, log) = finishing.await.unwrap();
        assert_eq!(directive, Directive::Wait("a test".into()));
        assert_eq!(log.iter().filter(|entry| *entry != "work").collect::<Vec<_>>(), ["6", "7"]);
    }
}

//! The Data service: streams of chunks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hw2_proto::v1;
use hw2_proto::v1::data_server::Data;
use hw2_proto::v1::push_message::Message;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::pull::{PullStream, pull};
use super::push::Receiver;

/// Serves Data.
#[derive(Clone)]
pub(super) struct DataService {
    pub(super) receiver: Receiver,
    pub(super) pushing: Pushing,
}

#[tonic::async_trait]
impl Data for DataService {
    type PullStream = PullStream;

    async fn push(
        &self,
        request: Request<Streaming<v1::PushMessage>>,
    ) -> Result<Response<v1::PushReply>, Status> {
        let mut stream = request.into_inner();
        let first = tokio::time::timeout(self.receiver.pause_max, stream.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("a push that never began"))??;
        let Some(v1::PushMessage { message: Some(Message::Head(head)) }) = first else {
            return Err(Status::invalid_argument("a push begins with its head"));
        };
        let turn = self.pushing.begin(head.worker);
        let outcome = self.receiver.receive(head, stream, turn.superseded.clone()).await?;
        Ok(Response::new(outcome.into()))
    }

    async fn pull(
        &self,
        request: Request<v1::PullRequest>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let stream = pull(&self.receiver.driver, request.into_inner()).await?;
        Ok(Response::new(stream))
    }
}

/// One push stream for each worker: a newer one ends the older, whose connection may be dead.
#[derive(Clone, Default)]
pub(super) struct Pushing(Arc<Mutex<HashMap<u64, (u64, CancellationToken)>>>);

/// A worker's push stream.
struct Turn {
    pushing: Pushing,
    worker: u64,
    number: u64,
    superseded: CancellationToken,
}

impl Pushing {
    fn begin(&self, worker: u64) -> Turn {
        let superseded = CancellationToken::new();
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = streams.get(&worker).map_or(0, |(number, _)| number + 1);
        if let Some((_, older)) = streams.insert(worker, (number, superseded.clone())) {
            older.cancel();
        }
        Turn { pushing: self.clone(), worker, number, superseded }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut streams = self.pushing.0.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.get(&self.worker).is_some_and(|(number, _)| *number == self.number) {
            streams.remove(&self.worker);
        }
    }
}

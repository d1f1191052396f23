//! The Data service: streams of chunks.

use hw2_proto::v1;
use hw2_proto::v1::data_server::Data;
use hw2_proto::v1::push_message::Message;
use tonic::{Request, Response, Status, Streaming};

use super::pull::{PullStream, pull};
use super::push::Receiver;

/// Serves Data.
#[derive(Clone)]
pub(super) struct DataService {
    pub(super) receiver: Receiver,
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
        let outcome = self.receiver.receive(head, stream).await?;
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

//! The Data service: streams of chunks, whose values are not copied on their way.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use http::{Request, Response};
use hw2_common::grpc::{self, Incoming, Parcel};
use hw2_common::ids::Term;
use hw2_proto::v1;
use hw2_proto::v1::data_server::SERVICE_NAME;
use hw2_proto::v1::push_message::Message;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower_service::Service;

use super::desk::Desk;
use super::pull::pull;
use super::push::Receiver;
use crate::coordinator::check_term;

/// Serves Data.
#[derive(Clone)]
pub(super) struct DataService {
    pub(super) desk: Desk,
}

impl DataService {
    async fn push(&self, mut messages: Incoming) -> Result<v1::PushReply, Status> {
        let receiver = &self.desk.served()?.receiver;
        let first = tokio::time::timeout(receiver.pause_max, messages.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("a push that never began"))??;
        let Some(v1::PushMessage { message: Some(Message::Head(head)) }) = first else {
            return Err(Status::invalid_argument("a push begins with its head"));
        };
        Ok(receiver.receive(head, messages).await?.into())
    }

    async fn call(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let path = request.uri().path().to_owned();
        let mut messages = Incoming::new(request.into_body());
        match path.as_str() {
            grpc::PUSH => {
                let reply = self.push(messages).await?;
                Ok(grpc::response(tokio_stream::iter([Ok(Parcel::new(&reply))])))
            }
            grpc::PULL => {
                let Receiver { term, plane, pause_max, .. } = &self.desk.served()?.receiver;
                let request = tokio::time::timeout(*pause_max, messages.message());
                let request = request.await;
                let request =
                    request.map_err(|_| Status::deadline_exceeded("a pull that never began"))??;
                let request: v1::PullRequest =
                    request.ok_or_else(|| Status::invalid_argument("a pull without request"))?;
                check_term(*term, Term(request.term))?;
                let messages = Box::pin(pull(plane, request)?);
                Ok(grpc::response(messages.map(|message| Ok(Parcel::from(message)))))
            }
            _ => Err(Status::unimplemented(format!("no method {path}"))),
        }
    }
}

impl Service<Request<Body>> for DataService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = Self::call(self.clone(), request);
        Box::pin(async move { Ok(call.await.unwrap_or_else(Status::into_http)) })
    }
}

impl NamedService for DataService {
    const NAME: &'static str = SERVICE_NAME;
}

//! A pull: streams one version of the vectors, and says in the end whether it is what the step came
//! to.
//!
//! The weights of the next step are streamed while they are made, before it is known whether the
//! step under way will commit.

use hw2_common::ids::{GlobalStep, VersionId};
use hw2_proto::v1::pull_message::Message;
use hw2_proto::v1::{Committed, PullMessage, PullRequest, Withdrawn, pull_request};
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::Status;

use crate::plane::{Next, Offer, Plane, PlaneRef, Reading};

/// Streams what `request` names.
pub(super) fn pull(
    plane: &Plane,
    request: PullRequest,
) -> Result<impl Stream<Item = PullMessage> + Send + use<>, Status> {
    let version = match request.version {
        Some(pull_request::Version::WeightsStep(step)) => VersionId::Weights(GlobalStep(step)),
        Some(pull_request::Version::EmaStep(step)) => VersionId::Ema(GlobalStep(step)),
        None => return Err(Status::invalid_argument("a pull of nothing")),
    };
    let (plane, changes) = (plane.downgrade(), plane.changes());
    let pulling = Pulling { plane, changes, version, reading: None };
    Ok(futures_util::stream::unfold(Some(pulling), |pulling| async {
        let mut pulling = pulling?;
        let message = pulling.next().await;
        let goes_on = matches!(message, Message::Chunk(_));
        Some((PullMessage { message: Some(message) }, goes_on.then_some(pulling)))
    }))
}

/// One pull.
struct Pulling {
    plane: PlaneRef,
    changes: watch::Receiver<()>,
    version: VersionId,
    /// What is being streamed.
    reading: Option<Reading>,
}

impl Pulling {
    async fn next(&mut self) -> Message {
        loop {
            // Before the look: what changes after it is noticed.
            self.changes.mark_unchanged();
            match &mut self.reading {
                Some(reading) => match reading.next() {
                    Next::Chunk(chunk) => return Message::Chunk(chunk),
                    Next::Gone => return Message::Withdrawn(Withdrawn {}),
                    Next::End if self.is_committed() => return Message::Committed(Committed {}),
                    Next::End | Next::Later => {}
                },
                None => match self.plane.offer(self.version) {
                    Offer::Committed(version) | Offer::Provisional(version) => {
                        self.reading = Some(version.read());
                        continue;
                    }
                    Offer::Nothing => return Message::Withdrawn(Withdrawn {}),
                    Offer::Later => {}
                },
            }
            self.changed().await;
        }
    }

    /// Whether what is being streamed is part of the state.
    fn is_committed(&self) -> bool {
        match (self.plane.offer(self.version), &self.reading) {
            (Offer::Committed(version), Some(reading)) => reading.is_of(&version),
            _ => false,
        }
    }

    /// Waits until [`Self::next`] may go on.
    async fn changed(&mut self) {
        let made = async {
            match &mut self.reading {
                Some(reading) => reading.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = made => {}
            // An error says that there is no plane any more, and nothing to pull.
            _ = self.changes.changed() => {}
        }
    }
}

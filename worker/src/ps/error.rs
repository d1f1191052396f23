//! What can go wrong between a worker and the server, by what the worker then does.

use hw2_common::connection::with_causes;
use tonic::{Code, Status};

/// Why a call to the server failed.
#[derive(Debug, thiserror::Error)]
pub enum PsError {
    /// No connection, or it broke: connect again and join again.
    #[error("lost the server: {0}")]
    Lost(String),
    /// The server asks to join again: another term, or it no longer counts on this worker.
    #[error("the server asks to join again: {0}")]
    Rejoin(String),
    /// The server will not have this worker, or not this message: trying again is of no use.
    #[error("refused by the server: {0}")]
    Refused(String),
    /// The server broke the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// This process was asked to stop while it waited.
    #[error("asked to stop")]
    Stopped,
}

impl From<Status> for PsError {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::Aborted => Self::Rejoin(message),
            Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented => Self::Refused(message),
            code => Self::Lost(format!("{code:?}: {message}")),
        }
    }
}

impl From<tonic::transport::Error> for PsError {
    fn from(error: tonic::transport::Error) -> Self {
        Self::Lost(with_causes(&error))
    }
}

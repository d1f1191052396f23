//! The wire protocol: types and services generated from `ps.proto`. Nothing else lives here.

#![forbid(unsafe_code)]

/// Version 1 of the parameter-server protocol.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod v1 {
    tonic::include_proto!("hw2.ps.v1");
}

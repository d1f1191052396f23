//! Connections to a server, as workers and followers make them.

use std::time::Duration;

use tonic::transport::Endpoint;

use crate::address::Address;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time after which a side that hears nothing asks for a sign of life.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Time for that sign: a connection whose other end is gone without a word lasts no longer than
/// both.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// The server at `address`, which is not connected to yet.
///
/// # Errors
/// The address makes no URI.
pub fn endpoint(address: &Address) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(address.uri())?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

/// The error and what caused it, in one line: tonic's own message is only "transport error".
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

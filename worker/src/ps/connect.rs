//! A connection to a server, over TCP or a Unix socket.

use std::io;

use hw2_common::address::Address;
use hw2_common::turns::Turns;
use hw2_common::wire::FRAME_BYTES;
use hw2_common::{connection, socket};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::Channel;
use tower::{ServiceExt, service_fn};

use super::PsError;

/// Room for a whole vector in flight, so that the sender never waits for a window.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// Connects once.
///
/// # Errors
/// [`PsError::Lost`] when there is no server.
pub(super) async fn connect(address: Address) -> Result<Channel, PsError> {
    let endpoint = connection::endpoint(&address)?
        .max_frame_size(FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    Ok(match address {
        Address::Tcp(_) => {
            let in_turns = |connection: TokioIo<TcpStream>| {
                let connection = connection.into_inner();
                // Without it, it is slower.
                if let Err(error) = socket::set_up_tcp(&connection) {
                    tracing::warn!("cannot set up a connection: {error}");
                }
                TokioIo::new(Turns::new(connection))
            };
            endpoint.connect_with_connector(HttpConnector::new().map_response(in_turns)).await?
        }
        Address::Unix(path) => {
            let connector = service_fn(move |_| {
                let path = path.clone();
                async move {
                    let connection = UnixStream::connect(path).await?;
                    socket::set_up_unix(&connection)?;
                    Ok::<_, io::Error>(TokioIo::new(Turns::new(connection)))
                }
            });
            endpoint.connect_with_connector(connector).await?
        }
    })
}

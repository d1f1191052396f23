//! Asks a running server how it is.

use std::time::Duration;

use anyhow::Context;
use hw2_common::address::Address;
use hw2_proto::v1::control_client::ControlClient;
use hw2_proto::v1::{StatusReply, StatusRequest};
use tonic::transport::{Channel, Endpoint};

/// An answer that takes longer will not come.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects at the first question, and again after the server was gone.
#[derive(Clone)]
pub(crate) struct Control {
    address: Address,
    client: ControlClient<Channel>,
}

impl Control {
    /// For the server at `address`, which need not be there yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// The address makes no URI.
    pub(crate) fn new(address: &Address) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(address.uri())
            .with_context(|| format!("address `{address}`: write host:port or unix:PATH"))?
            .connect_timeout(ANSWER_TIMEOUT)
            .timeout(ANSWER_TIMEOUT);
        let client = ControlClient::new(endpoint.connect_lazy());
        Ok(Self { address: address.clone(), client })
    }

    /// What the server is doing.
    ///
    /// # Errors
    /// No answer, with the address and what to look at.
    pub(crate) async fn status(&mut self) -> anyhow::Result<StatusReply> {
        let reply = self.client.status(StatusRequest {}).await;
        let reply = reply.map_err(|status| {
            anyhow::anyhow!(
                "no answer from a server at {}: {}; is it running, and is this what it listens on?",
                self.address,
                status.message()
            )
        })?;
        Ok(reply.into_inner())
    }
}

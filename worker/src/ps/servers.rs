//! The servers that hold the vectors, and which part of them each one has.

use hw2_common::address::Address;
use hw2_common::config::WireFormat;
use hw2_common::layout::ParamLayout;
use hw2_common::shard::Shard;
use hw2_common::wire::{Cut, TooManyShards};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::PsError;
use super::connect::connect;
use super::io_thread::IoThread;

/// A connection for bulk data, with a thread of its own.
pub(super) struct Connection {
    pub(super) data: Channel,
    pub(super) io: IoThread,
}

/// A server and what it has.
pub(super) struct Server {
    pub(super) data: Channel,
    pub(super) io: IoThread,
    pub(super) holding: Holding,
}

/// The part of the vectors that a server has.
pub(super) struct Holding {
    pub(super) shard: Shard,
    pub(super) wire: WireFormat,
    pub(super) params: Cut,
    /// All or nothing: the first has them.
    pub(super) buffers: Cut,
}

impl Connection {
    /// Connects once.
    ///
    /// # Errors
    /// [`PsError::Lost`] when there is no server.
    pub(super) fn open(address: &Address, stop: &CancellationToken) -> Result<Self, PsError> {
        let io = IoThread::start("hw2-data").map_err(|error| PsError::Lost(error.to_string()))?;
        let data = io.call(stop, connect(address.clone()))?;
        Ok(Self { data, io })
    }
}

impl Holding {
    /// What `shard` has of the vectors of `layout`, of which weights and gradients travel in
    /// `wire`.
    ///
    /// # Errors
    /// The network is too small for so many.
    pub(super) fn new(
        layout: &ParamLayout,
        wire: WireFormat,
        shard: Shard,
    ) -> Result<Self, TooManyShards> {
        let params = Cut::params(layout, wire, shard.count).shard(shard)?;
        let buffers = if shard.is_coordinator() { layout.buffers.len() } else { 0 };
        Ok(Self { shard, wire, params, buffers: Cut::whole(buffers) })
    }

    /// All.
    #[cfg(test)]
    pub(super) fn whole(layout: &ParamLayout, wire: WireFormat) -> Self {
        Self::new(layout, wire, Shard::WHOLE).expect("a network has a chunk")
    }

    /// For the names of tracks: nothing where there is one server only.
    pub(super) fn label(&self) -> String {
        match self.shard.count {
            1 => String::new(),
            _ => format!(", {}", self.shard),
        }
    }
}

//! The connections to the servers, and what may be asked before joining.

use std::time::Duration;

use hw2_common::address::{Address, Addresses};
use hw2_common::ids::{Term, WorkerId};
use hw2_common::job::{BUILD, Job, PROTOCOL_VERSION};
use hw2_common::layout::ParamLayout;
use hw2_common::shard::Shard;
use hw2_proto::v1;
use hw2_proto::v1::control_client::ControlClient;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::connect::connect;
use super::io_thread::IoThread;
use super::servers::{Connection, Holding, Server};
use super::{PsError, Session};

/// A unary control call that takes longer has lost its server.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Connected, not joined.
pub struct Client {
    pub(super) control: ControlClient<Channel>,
    pub(super) control_io: IoThread,
    /// In the order of the shards.
    connections: Vec<Connection>,
    pub(super) stop: CancellationToken,
}

/// What the server says of its job.
pub struct Hello {
    /// The server's present life.
    pub term: Term,
    /// What there is to do.
    pub job: Job,
}

/// What a worker shows to be let in.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// [`hw2_common::layout::ParamLayout::fingerprint`] as this worker computes it.
    pub layout_fingerprint: String,
    /// The config's fingerprint as this worker computes it.
    pub config_fingerprint: String,
    /// Of the dataset that this worker reads.
    pub dataset_fingerprint: String,
    /// Digest of the gradient of a fixed synthetic batch on this worker's device.
    pub numeric_kind: String,
    /// For people: host, process id, device.
    pub label: String,
}

impl Client {
    /// Connects once to each server of `ps`; cancelling `stop` ends every later wait with
    /// [`PsError::Stopped`].
    ///
    /// # Errors
    /// [`PsError::Lost`] when there is none.
    pub fn connect(ps: &Addresses, stop: &CancellationToken) -> Result<Self, PsError> {
        let lost = |error: std::io::Error| PsError::Lost(error.to_string());
        let control_io = IoThread::start("hw2-control").map_err(lost)?;
        let control = control_io.call(stop, connect(ps.coordinator().clone()))?;
        let open = |address: &Address| Connection::open(address, stop);
        let connections = ps.all().iter().map(open).collect::<Result<_, _>>()?;
        let (control, stop) = (ControlClient::new(control), stop.clone());
        Ok(Self { control, control_io, connections, stop })
    }

    /// Asks what the job is, and each server which part of the vectors it has.
    ///
    /// # Errors
    /// As every call; [`PsError::Refused`] for another protocol version or build, or for servers
    /// that are not those of one run in their order.
    pub fn hello(&self) -> Result<Hello, PsError> {
        let reply = self.ask_hello(self.control.clone())?;
        let count = self.connections.len();
        for (shard, connection) in Shard::all(count).zip(&self.connections) {
            let other = self.ask_hello(ControlClient::new(connection.data.clone()))?;
            let theirs = Shard { index: other.shard as usize, count: other.shards as usize };
            if theirs != shard {
                return Err(PsError::Refused(format!(
                    "server {} of {count} in --ps is {theirs}: name the servers of the run, all of \
                     them in their order, separated by commas",
                    shard.index
                )));
            }
            if other.term != reply.term {
                return Err(PsError::Rejoin(format!("{theirs} is not in the coordinator's term")));
            }
        }
        let unusable = |error: String| PsError::Protocol(format!("its job is unusable: {error}"));
        let job: Job =
            serde_json::from_str(&reply.job_json).map_err(|error| unusable(error.to_string()))?;
        let job = Job::new(job.config, job.dataset).map_err(|error| unusable(error.to_string()))?;
        Ok(Hello { term: Term(reply.term), job })
    }

    fn ask_hello(&self, mut control: ControlClient<Channel>) -> Result<v1::HelloReply, PsError> {
        let request =
            v1::HelloRequest { protocol_version: PROTOCOL_VERSION, build: BUILD.to_owned() };
        let answer = async move { Ok(control.hello(timed(request)).await?.into_inner()) };
        self.control_io.call(&self.stop, answer)
    }

    /// Joins, and from then on sends heartbeats.
    ///
    /// # Errors
    /// As every call; [`PsError::Refused`] names what differs, with both values.
    pub fn join(
        mut self,
        hello: &Hello,
        layout: &ParamLayout,
        credentials: &Credentials,
    ) -> Result<Session, PsError> {
        let credentials = credentials.clone();
        let request = v1::JoinRequest {
            term: hello.term.0,
            protocol_version: PROTOCOL_VERSION,
            build: BUILD.to_owned(),
            layout_fingerprint: credentials.layout_fingerprint,
            config_fingerprint: credentials.config_fingerprint,
            dataset_fingerprint: credentials.dataset_fingerprint,
            numeric_kind: credentials.numeric_kind,
            label: credentials.label,
        };
        let mut control = self.control.clone();
        let reply = self.control_io.call(&self.stop, async move {
            Ok(control.join(timed(request)).await?.into_inner())
        })?;
        let interval = Duration::from_millis(u64::from(reply.heartbeat_interval_ms.max(1)));
        let worker = WorkerId(reply.worker);
        let connections = std::mem::take(&mut self.connections);
        let server = |(shard, Connection { data, io }): (Shard, Connection)| {
            let holding = Holding::new(layout, hello.job.config.wire, shard);
            let holding = holding.map_err(|error| PsError::Protocol(error.to_string()))?;
            Ok(Server { data, io, holding })
        };
        let servers = Shard::all(connections.len()).zip(connections).map(server);
        let servers = servers.collect::<Result<_, PsError>>()?;
        Ok(Session::begin(self, servers, hello, worker, interval, reply.traces))
    }
}

/// A request that gives up after [`CALL_TIMEOUT`].
pub(super) fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

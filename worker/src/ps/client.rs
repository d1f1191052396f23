//! The two connections to a server, and what may be asked before joining.

use std::time::Duration;

use hw2_common::address::Address;
use hw2_common::ids::{Term, WorkerId};
use hw2_common::job::{BUILD, Job, PROTOCOL_VERSION};
use hw2_proto::v1;
use hw2_proto::v1::control_client::ControlClient;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::connect::connect;
use super::io_thread::IoThread;
use super::{PsError, Session};

/// A unary control call that takes longer has lost its server.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Connected, not joined.
pub struct Client {
    pub(super) control: ControlClient<Channel>,
    pub(super) data: Channel,
    pub(super) control_io: IoThread,
    pub(super) data_io: IoThread,
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
    /// Connects once; cancelling `stop` ends every later wait with [`PsError::Stopped`].
    ///
    /// # Errors
    /// [`PsError::Lost`] when there is no server.
    pub fn connect(address: &Address, stop: &CancellationToken) -> Result<Self, PsError> {
        let io = |name| IoThread::start(name).map_err(|error| PsError::Lost(error.to_string()));
        let (control_io, data_io) = (io("hw2-control")?, io("hw2-data")?);
        let connect = |io: &IoThread| io.call(stop, connect(address.clone()));
        let control = ControlClient::new(connect(&control_io)?);
        let data = connect(&data_io)?;
        Ok(Self { control, data, control_io, data_io, stop: stop.clone() })
    }

    /// Asks what the job is.
    ///
    /// # Errors
    /// As every call; [`PsError::Refused`] for another protocol version or build.
    pub fn hello(&self) -> Result<Hello, PsError> {
        let request =
            v1::HelloRequest { protocol_version: PROTOCOL_VERSION, build: BUILD.to_owned() };
        let mut control = self.control.clone();
        let reply = self.control_io.call(&self.stop, async move {
            Ok(control.hello(timed(request)).await?.into_inner())
        })?;
        let unusable = |error: String| PsError::Protocol(format!("its job is unusable: {error}"));
        let job: Job =
            serde_json::from_str(&reply.job_json).map_err(|error| unusable(error.to_string()))?;
        let job = Job::new(job.config, job.dataset).map_err(|error| unusable(error.to_string()))?;
        Ok(Hello { term: Term(reply.term), job })
    }

    /// Joins, and from then on sends heartbeats.
    ///
    /// # Errors
    /// As every call; [`PsError::Refused`] names what differs, with both values.
    pub fn join(self, term: Term, credentials: &Credentials) -> Result<Session, PsError> {
        let credentials = credentials.clone();
        let request = v1::JoinRequest {
            term: term.0,
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
        Ok(Session::begin(self, term, WorkerId(reply.worker), interval, reply.traces))
    }
}

/// A request that gives up after [`CALL_TIMEOUT`].
pub(super) fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

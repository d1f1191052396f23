//! The link between the coordinator and a follower, on both sides.

use std::pin::Pin;

use hw2_common::address::Address;
use hw2_common::checkpoint::PartFile;
use hw2_common::connection::{self, with_causes};
use hw2_common::ids::{GlobalStep, Term, WorkerId};
use hw2_common::job::{BUILD, PROTOCOL_VERSION};
use hw2_common::shard::Shard;
use hw2_common::spans::Spans;
use hw2_proto::v1::control_client::ControlClient;
use hw2_proto::v1::follower_order::Order as WireOrder;
use hw2_proto::v1::follower_report::Report as WireReport;
use hw2_proto::v1::followers_client::FollowersClient;
use hw2_proto::v1::followers_server::Followers;
use hw2_proto::v1::push_admission::Answer;
use hw2_proto::v1::spans_report::Reporter;
use hw2_proto::v1::{self, FollowerOrder, FollowerReport};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::convert;
use crate::coordinator::{Admission, Order, Refusal, Share, Update, check_program};
use crate::shard::{FollowerLink, FromFollower, Muster, Place, Probe, ToFollower, Welcome};

/// Serves Followers.
#[derive(Clone)]
pub(super) struct FollowersService {
    /// None where this server is not the coordinator, or has no followers.
    pub(super) muster: Option<Muster>,
}

type Orders = Pin<Box<dyn Stream<Item = Result<FollowerOrder, Status>> + Send>>;

#[tonic::async_trait]
impl Followers for FollowersService {
    type EnlistStream = Orders;

    async fn enlist(
        &self,
        request: Request<Streaming<FollowerReport>>,
    ) -> Result<Response<Orders>, Status> {
        let muster = self.muster.as_ref().ok_or_else(|| {
            Status::failed_precondition("this server is not the first of several (--shard 0/COUNT)")
        })?;
        let mut messages = request.into_inner();
        let first = messages.message().await?;
        let first = first.ok_or_else(|| Status::cancelled("a server that said nothing"))?;
        let Some(WireReport::Enlistment(enlistment)) = first.report else {
            return Err(Status::invalid_argument("a server begins with its enlistment"));
        };
        check_program(enlistment.protocol_version, &enlistment.build)?;
        let [index, count] = [enlistment.shard, enlistment.shards].map(|number| number as usize);
        let shard = Shard { index, count };
        let place = muster.place(shard)?;
        let (orders, ordered) = mpsc::unbounded_channel();
        let (reported, reports) = mpsc::unbounded_channel();
        muster.arrive(FollowerLink { shard, orders, reports });
        tokio::spawn(listen(place, shard, messages, reported));
        let orders = UnboundedReceiverStream::new(ordered);
        Ok(Response::new(Box::pin(orders.map(|order| Ok(FollowerOrder::from(order))))))
    }
}

/// Passes on what a follower says, until one of the two has enough of it.
async fn listen(
    _place: Place,
    shard: Shard,
    mut messages: Streaming<FollowerReport>,
    reported: mpsc::UnboundedSender<FromFollower>,
) {
    loop {
        let message = tokio::select! {
            message = messages.message() => message,
            () = reported.closed() => return,
        };
        let report = match message {
            Ok(Some(FollowerReport { report: Some(report) })) => read_report(shard, report),
            Ok(_) => None,
            Err(status) => return tracing::debug!("{shard}: {}", status.message()),
        };
        // What says nothing ends the link.
        let Some(report) = report else { return };
        if reported.send(report).is_err() {
            return;
        }
    }
}

/// A term that a follower takes part in.
pub(crate) struct Enlisted {
    /// How it begins.
    pub(crate) welcome: Welcome,
    pub(crate) reports: mpsc::UnboundedSender<FromFollower>,
    pub(crate) link: Link,
    /// If the coordinator writes a trace.
    pub(crate) spans: Option<Spans>,
}

/// Takes part in a run as `shard`.
///
/// # Errors
/// There is no coordinator, it refuses, or it ended before a term began.
pub(crate) async fn enlist(coordinator: &Address, shard: Shard) -> Result<Enlisted, Status> {
    let unavailable = |error: tonic::transport::Error| Status::unavailable(with_causes(&error));
    let endpoint = connection::endpoint(coordinator).map_err(unavailable)?;
    let channel = endpoint.connect().await.map_err(unavailable)?;
    let enlistment = WireReport::Enlistment(v1::Enlistment {
        protocol_version: PROTOCOL_VERSION,
        build: BUILD.to_owned(),
        shard: shard.index as u32,
        shards: shard.count as u32,
    });
    let (reports, reported) = mpsc::unbounded_channel();
    let reported = UnboundedReceiverStream::new(reported).map(|report| Some(write_report(report)));
    let all = tokio_stream::once(Some(enlistment)).chain(reported);
    let messages = all.map(|report| FollowerReport { report });
    let orders = FollowersClient::new(channel.clone()).enlist(messages).await?.into_inner();
    let mut link = Link { orders };
    let Some(ToFollower::Welcome(welcome)) = link.next().await? else {
        return Err(Status::unavailable("the coordinator has no term for it"));
    };
    let spans = welcome.traces.then(|| {
        let reporter = Reporter::Shard(shard.index as u32);
        Spans::begin(ControlClient::new(channel), welcome.term, reporter)
    });
    Ok(Enlisted { welcome, reports, link, spans })
}

/// What the coordinator orders.
pub(crate) struct Link {
    orders: Streaming<FollowerOrder>,
}

impl Link {
    /// The next order; none when the term is over.
    ///
    /// # Errors
    /// The connection broke, or the coordinator broke the protocol.
    pub(crate) async fn next(&mut self) -> Result<Option<ToFollower>, Status> {
        let Some(message) = self.orders.message().await? else { return Ok(None) };
        let order = message.order.and_then(read_order);
        order.map(Some).ok_or_else(|| Status::invalid_argument("an order that says nothing"))
    }
}

fn write_report(report: FromFollower) -> WireReport {
    match report {
        FromFollower::Ready => WireReport::Ready(v1::FollowerReady {}),
        FromFollower::PushBegins { id, worker, assignment } => {
            WireReport::PushBegins(v1::PushBegins {
                id,
                worker: worker.0,
                step: assignment.step.0,
                replica: assignment.replica.0,
            })
        }
        FromFollower::Received(share) => WireReport::ShareReceived(v1::ShareReceived {
            worker: share.worker.0,
            step: share.assignment.step.0,
            replica: share.assignment.replica.0,
            digest: share.gradient,
            non_finite: share.non_finite,
        }),
        FromFollower::PushFailed(worker, assignment) => {
            WireReport::PushFailed(v1::ContributionOf {
                worker: worker.0,
                step: assignment.step.0,
                replica: assignment.replica.0,
            })
        }
        FromFollower::UpdateMade => WireReport::UpdateMade(v1::UpdateMade {}),
        FromFollower::Saved { id, saved } => WireReport::PartSaved(match saved {
            Ok(PartFile { file, checksum, start, end }) => v1::PartSaved {
                id,
                file,
                checksum,
                start: start as u64,
                end: end as u64,
                error: String::new(),
            },
            Err(error) => v1::PartSaved { id, error, ..v1::PartSaved::default() },
        }),
        FromFollower::Leaving(reason) => WireReport::Leaving(reason),
        FromFollower::Unfit(reason) => WireReport::Unfit(reason),
    }
}

/// None if it is out of place.
fn read_report(shard: Shard, report: WireReport) -> Option<FromFollower> {
    Some(match report {
        WireReport::Enlistment(_) => return None,
        WireReport::Ready(v1::FollowerReady {}) => FromFollower::Ready,
        WireReport::PushBegins(v1::PushBegins { id, worker, step, replica }) => {
            let assignment = convert::assignment(step, replica);
            FromFollower::PushBegins { id, worker: WorkerId(worker), assignment }
        }
        WireReport::ShareReceived(received) => FromFollower::Received(Share {
            worker: WorkerId(received.worker),
            assignment: convert::assignment(received.step, received.replica),
            shard: shard.index,
            gradient: received.digest,
            non_finite: received.non_finite,
            rest: None,
        }),
        WireReport::PushFailed(v1::ContributionOf { worker, step, replica }) => {
            FromFollower::PushFailed(WorkerId(worker), convert::assignment(step, replica))
        }
        WireReport::UpdateMade(v1::UpdateMade {}) => FromFollower::UpdateMade,
        WireReport::PartSaved(v1::PartSaved { id, file, checksum, start, end, error }) => {
            let (start, end) = (start as usize, end as usize);
            let saved = match error.is_empty() {
                true => Ok(PartFile { file, start, end, checksum }),
                false => Err(error),
            };
            FromFollower::Saved { id, saved }
        }
        WireReport::Leaving(reason) => FromFollower::Leaving(reason),
        WireReport::Unfit(reason) => FromFollower::Unfit(reason),
    })
}

impl From<ToFollower> for FollowerOrder {
    fn from(order: ToFollower) -> Self {
        let of = |worker: WorkerId, assignment: hw2_common::ids::Assignment| v1::ContributionOf {
            worker: worker.0,
            step: assignment.step.0,
            replica: assignment.replica.0,
        };
        let order = match order {
            ToFollower::Welcome(Welcome { term, job_json, run_dir, probe, checkpoint, traces }) => {
                WireOrder::Welcome(v1::Welcome {
                    term: term.0,
                    job_json,
                    run_dir,
                    probe_file: probe.file,
                    probe: probe.content,
                    checkpoint_step: checkpoint.map(|step| step.0),
                    traces,
                })
            }
            ToFollower::Order(Order::Begin { step, update }) => WireOrder::Begin(v1::BeginStep {
                step: step.0,
                update: update.number,
                learning_rate: update.learning_rate,
            }),
            ToFollower::Order(Order::Count(worker, assignment)) => {
                WireOrder::Count(of(worker, assignment))
            }
            ToFollower::Order(Order::Forget(worker, assignment)) => {
                WireOrder::Forget(of(worker, assignment))
            }
            ToFollower::Order(Order::Commit { step, makes_update }) => {
                WireOrder::Commit(v1::CommitStep { step: step.0, makes_update })
            }
            ToFollower::Order(Order::Discard) => WireOrder::Discard(v1::DiscardStep {}),
            ToFollower::Admission { id, answer } => {
                let (answer, reason) = match answer {
                    Ok(Admission::Receive) => (Answer::Receive, String::new()),
                    Ok(Admission::Discard) => (Answer::Discard, String::new()),
                    Err(Refusal::Rejoin(reason)) => (Answer::Rejoin, reason),
                    Err(Refusal::Invalid(reason)) => (Answer::Invalid, reason),
                    Err(Refusal::NotNow(reason)) => (Answer::NotNow, reason),
                    Err(Refusal::Full(reason)) => (Answer::Full, reason),
                };
                WireOrder::Admission(v1::PushAdmission { id, answer: answer.into(), reason })
            }
            ToFollower::Save { id, step, folder } => {
                WireOrder::Save(v1::SavePart { id, step: step.0, folder })
            }
            ToFollower::Stop { reason } => WireOrder::Stop(reason),
        };
        Self { order: Some(order) }
    }
}

/// None if it says nothing.
fn read_order(order: WireOrder) -> Option<ToFollower> {
    let of =
        |of: v1::ContributionOf| (WorkerId(of.worker), convert::assignment(of.step, of.replica));
    Some(match order {
        WireOrder::Welcome(welcome) => ToFollower::Welcome(Welcome {
            term: Term(welcome.term),
            job_json: welcome.job_json,
            run_dir: welcome.run_dir,
            probe: Probe { file: welcome.probe_file, content: welcome.probe },
            checkpoint: welcome.checkpoint_step.map(GlobalStep),
            traces: welcome.traces,
        }),
        WireOrder::Begin(v1::BeginStep { step, update, learning_rate }) => {
            let update = Update { number: update, learning_rate };
            ToFollower::Order(Order::Begin { step: GlobalStep(step), update })
        }
        WireOrder::Count(contribution) => {
            let (worker, assignment) = of(contribution);
            ToFollower::Order(Order::Count(worker, assignment))
        }
        WireOrder::Forget(contribution) => {
            let (worker, assignment) = of(contribution);
            ToFollower::Order(Order::Forget(worker, assignment))
        }
        WireOrder::Commit(v1::CommitStep { step, makes_update }) => {
            ToFollower::Order(Order::Commit { step: GlobalStep(step), makes_update })
        }
        WireOrder::Discard(v1::DiscardStep {}) => ToFollower::Order(Order::Discard),
        WireOrder::Admission(admission) => {
            let reason = admission.reason.clone();
            let answer = match admission.answer() {
                Answer::Receive => Ok(Admission::Receive),
                Answer::Discard => Ok(Admission::Discard),
                Answer::Rejoin => Err(Refusal::Rejoin(reason)),
                Answer::Invalid => Err(Refusal::Invalid(reason)),
                Answer::NotNow => Err(Refusal::NotNow(reason)),
                Answer::Full => Err(Refusal::Full(reason)),
            };
            ToFollower::Admission { id: admission.id, answer }
        }
        WireOrder::Save(v1::SavePart { id, step, folder }) => {
            ToFollower::Save { id, step: GlobalStep(step), folder }
        }
        WireOrder::Stop(reason) => ToFollower::Stop { reason },
    })
}

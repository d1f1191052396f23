//! What the coordinator answers and orders.

use hw2_common::ids::{Assignment, BlockId, GlobalStep, ReplicaId, WorkerId};
use hw2_common::state::Progress;

use super::credit::Credit;
use crate::curve::Line;

/// A call that is answered later, by [`Effect::Direct`] or [`Effect::GiveCredit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Waiter(pub(crate) u64);

/// What a worker is told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Directive {
    /// Compute these replicas of `step`, in this order.
    Run { step: GlobalStep, assignments: Vec<Leased> },
    /// Count the right answers on these blocks with the EMA weights of `step`.
    Evaluate { step: GlobalStep, blocks: Vec<BlockId> },
    /// Nothing to do now: ask again.
    Wait(String),
    /// Join again.
    Rejoin(String),
    /// The run has ended.
    Stop { finished: bool, reason: String },
}

/// A replica in a [`Directive::Run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leased {
    pub(crate) replica: ReplicaId,
    /// May be pushed without asking.
    pub(crate) credit: bool,
}

/// Why a message changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Of another term, or of a worker that never joined in this one: join again.
    Rejoin(String),
    /// Can never be right.
    Invalid(String),
    /// Not what the run needs, or not yet.
    NotNow(String),
    /// A limit is reached.
    Full(String),
}

impl Refusal {
    /// For people.
    pub(crate) fn message(&self) -> &str {
        let (Self::Rejoin(text) | Self::Invalid(text) | Self::NotNow(text) | Self::Full(text)) =
            self;
        text
    }
}

/// What the driver has to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// Answer a worker that asks what to do.
    Direct(Waiter, Directive),
    /// Answer a worker that asked to push.
    GiveCredit(Waiter, Credit),
    /// Every server does this.
    Order(Order),
    /// Copy the state, write it aside, and then call [`super::Coordinator::saved`].
    Save(Progress),
    /// Add a line to the curve.
    Record(Line),
    /// Keep what is needed to replay a contribution that was not finite.
    KeepReplay(Replay),
    /// Tell people.
    Notice(Level, String),
}

/// What every server does with its part of the vectors, in this order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Order {
    /// `step` is under way; if it commits with an update, it is this one.
    Begin { step: GlobalStep, update: Update },
    /// A contribution counts: its tensors go into the aggregate.
    Count(WorkerId, Assignment),
    /// Its tensors are not wanted, as far as they are there.
    Forget(WorkerId, Assignment),
    /// Make the update of `step` from the contributions, or none, and then have
    /// [`super::Coordinator::update_made`] called.
    Commit { step: GlobalStep, makes_update: bool },
    /// Forget the contributions of the current step.
    Discard,
}

/// The scalars of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Update {
    /// Number of the update, counted from 1: the t of Adam and of the EMA.
    pub(crate) number: u64,
    pub(crate) learning_rate: f64,
}

/// A contribution that was not finite.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Replay {
    pub(crate) assignment: Assignment,
    /// The worker with its label.
    pub(crate) worker: String,
    /// What was not finite.
    pub(crate) what: String,
    /// Sample ids of the micro-batch.
    pub(crate) samples: Vec<u32>,
    /// Of the state whose weights were used.
    pub(crate) progress: Progress,
}

/// How loud a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Info,
    /// The run helps itself.
    Warn,
    /// A person must look.
    Error,
}

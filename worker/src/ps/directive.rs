//! What the server tells a worker to do.

use hw2_common::ids::{BlockId, GlobalStep, ReplicaId};
use hw2_proto::v1;

use super::PsError;

/// The answer to the question what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directive {
    /// Compute these replicas of `step`, in this order.
    Run {
        /// Whose weights the worker now holds.
        step: GlobalStep,
        /// Each with whether it may be pushed without asking.
        assignments: Vec<(ReplicaId, Credit)>,
    },
    /// Count the right answers on these blocks of the evaluation set.
    Evaluate {
        /// Whose EMA weights and running statistics the worker now holds.
        step: GlobalStep,
        /// Blocks, in this order.
        blocks: Vec<BlockId>,
    },
    /// Nothing to do for this worker now: ask again.
    Wait(String),
    /// Drop everything and join again.
    Rejoin(String),
    /// The server ends.
    Stop {
        /// Whether the run is over, so that no server will go on with it.
        finished: bool,
        /// Why, in words.
        reason: String,
    },
}

/// Whether a contribution may be pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credit {
    /// Yes.
    Push,
    /// Not yet; ask again.
    Wait(String),
    /// No longer: forget the gradient and ask what to do.
    Drop(String),
}

impl TryFrom<v1::Directive> for Directive {
    type Error = PsError;

    fn try_from(message: v1::Directive) -> Result<Self, PsError> {
        use v1::directive::Directive as Wire;
        let directive = message
            .directive
            .ok_or_else(|| PsError::Protocol("a directive that says nothing".into()))?;
        Ok(match directive {
            Wire::Run(run) if run.assignments.is_empty() => {
                return Err(PsError::Protocol("a step without assignments".into()));
            }
            Wire::Run(run) => Self::Run {
                step: GlobalStep(run.step),
                assignments: run.assignments.into_iter().map(assignment).collect(),
            },
            Wire::Evaluate(evaluate) => Self::Evaluate {
                step: GlobalStep(evaluate.step),
                blocks: evaluate.blocks.into_iter().map(BlockId).collect(),
            },
            Wire::Wait(wait) => Self::Wait(wait.reason),
            Wire::Rejoin(rejoin) => Self::Rejoin(rejoin.reason),
            Wire::Stop(v1::Stop { finished, reason }) => Self::Stop { finished, reason },
        })
    }
}

fn assignment(run: v1::RunAssignment) -> (ReplicaId, Credit) {
    let credit = match run.credit {
        true => Credit::Push,
        false => Credit::Wait("no credit with the directive".into()),
    };
    (ReplicaId(run.replica), credit)
}

impl From<v1::CreditReply> for Credit {
    fn from(reply: v1::CreditReply) -> Self {
        match reply.answer() {
            v1::credit_reply::Answer::Push => Self::Push,
            v1::credit_reply::Answer::Wait => Self::Wait(reply.reason),
            v1::credit_reply::Answer::Drop => Self::Drop(reply.reason),
        }
    }
}

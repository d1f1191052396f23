//! What is computed for a draft, away from its bookkeeping.

use std::sync::Arc;

use hw2_common::ids::GlobalStep;

use super::super::addend::{self, Addend, Operand, Verdict};
use super::super::block::Block;
use super::super::pass::Pass;
use super::super::pool::{Buffer, Pool};

/// Something to compute, away from the bookkeeping.
#[derive(Debug)]
pub(in super::super) struct Job {
    pub(super) step: GlobalStep,
    pub(super) attempt: u64,
    pub(super) lane: usize,
    pub(super) task: Task,
}

#[derive(Debug)]
pub(super) enum Task {
    Inspect(Box<Operand>),
    Sum(Arc<Addend>, Arc<Addend>),
    Update(Pass, Vec<Operand>),
}

impl Job {
    /// Which chunk of the state the job is about.
    pub(in super::super) fn lane(&self) -> usize {
        self.lane
    }

    /// Whether it only reads a chunk that has just arrived.
    pub(in super::super) fn is_inspection(&self) -> bool {
        matches!(self.task, Task::Inspect(_))
    }

    /// Does it; `block` is the chunk's present state.
    pub(in super::super) fn run(self, block: &Block, pool: &Pool) -> Done {
        let Self { step, attempt, lane, task } = self;
        let (made, operands) = match task {
            Task::Inspect(mut operand) => {
                operand.inspect();
                (Product::Nothing, vec![*operand])
            }
            Task::Sum(a, b) => (Product::Sum(addend::sum(&a, &b, pool)), Vec::new()),
            Task::Update(pass, mut operands) => {
                (Product::Block(pass.run(block, &mut operands, pool)), operands)
            }
        };
        let verdicts = operands.into_iter().filter_map(Operand::verdict).collect();
        Done { step, attempt, lane, verdicts, made }
    }
}

/// A job that is done.
#[derive(Debug)]
pub(in super::super) struct Done {
    pub(super) step: GlobalStep,
    pub(super) attempt: u64,
    pub(super) lane: usize,
    pub(super) verdicts: Vec<Verdict>,
    pub(super) made: Product,
}

/// What a job made.
#[derive(Debug)]
pub(super) enum Product {
    Nothing,
    Sum(Buffer),
    /// Of no use if a verdict is not good.
    Block(Block),
}

impl Done {
    pub(in super::super) fn step(&self) -> GlobalStep {
        self.step
    }

    /// What was done, for people.
    pub(in super::super) fn verb(&self) -> &'static str {
        match &self.made {
            Product::Nothing => "check",
            Product::Sum(_) => "sum",
            Product::Block(_) => "update",
        }
    }
}

//! One server's part of the vectors, and what has come in for it.

use std::collections::HashMap;

use hw2_common::ids::{Assignment, GlobalStep, WorkerId};

use crate::coordinator::Order;
use crate::plane::{Plane, Snapshot, Tensors};

/// Does what the coordinator orders, which alone decides what counts.
pub(crate) struct Store {
    plane: Plane,
    /// Contributions that are complete here, and of which it is not decided whether they count.
    complete: HashMap<(WorkerId, Assignment), Tensors>,
    under_way: Option<GlobalStep>,
}

impl Store {
    /// Of a plane that has just been started.
    pub(crate) fn new(plane: Plane) -> Self {
        Self { plane, complete: HashMap::new(), under_way: None }
    }

    /// Whether contributions to `step` can be used, if they are wanted.
    pub(crate) fn takes(&self, step: GlobalStep) -> bool {
        self.under_way == Some(step)
    }

    /// A contribution is complete here. One that was sent again takes the place of the first.
    pub(crate) fn keep(&mut self, worker: WorkerId, assignment: Assignment, tensors: Tensors) {
        self.complete.insert((worker, assignment), tensors);
    }

    /// Does it.
    ///
    /// # Errors
    /// What counts is not there: the coordinator and this server do not speak of the same.
    pub(crate) fn obey(&mut self, order: Order) -> Result<(), String> {
        match order {
            Order::Begin { step, update } => {
                self.complete.clear();
                self.under_way = Some(step);
                self.plane.begin(step, update);
            }
            Order::Count(worker, assignment) => {
                let tensors = self.complete.remove(&(worker, assignment));
                let missing = || format!("{assignment} from {worker} counts, and is not here");
                self.plane.count(tensors.ok_or_else(missing)?);
            }
            Order::Forget(worker, assignment) => drop(self.complete.remove(&(worker, assignment))),
            Order::Commit { step, makes_update } => {
                self.under_way = None;
                self.plane.commit(step, makes_update);
            }
            Order::Discard => {
                self.under_way = None;
                self.complete.clear();
                self.plane.discard();
            }
        }
        Ok(())
    }

    /// The state as it is now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.plane.snapshot()
    }
}

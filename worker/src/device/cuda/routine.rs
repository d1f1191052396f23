//! What is done at every step: launch by launch at first, then as a graph.

use super::graph::Graph;
use super::launch::Launch;
use super::runtime::{Runtime, RuntimeError};
use crate::device::Op;

/// Operations that were asked for once and are expected again.
pub(super) struct Routine {
    ops: Vec<Op>,
    /// Of each operation.
    launches: Vec<Vec<Launch>>,
    form: Form,
}

/// How a routine is done.
enum Form {
    /// Launch by launch this time, since a first launch may do what a graph cannot hold.
    New,
    /// Launch by launch once more, to make the graph.
    Known,
    Graph(Graph),
    /// Launch by launch: the driver knows no graphs.
    Plain,
}

impl Routine {
    /// `ops`, and the launches of each.
    pub(super) fn new(ops: &[Op], launches: Vec<Vec<Launch>>) -> Self {
        Self { ops: ops.to_vec(), launches, form: Form::New }
    }

    pub(super) fn is_for(&self, ops: &[Op]) -> bool {
        self.ops == ops
    }

    /// Asks for all of them.
    pub(super) fn run(&mut self, runtime: &mut Runtime) -> Result<(), RuntimeError> {
        let launches = &self.launches;
        let one_by_one =
            |runtime: &mut Runtime| launches.iter().try_for_each(|of_op| runtime.launch_all(of_op));
        match &self.form {
            Form::New => {
                self.form = Form::Known;
                one_by_one(runtime)
            }
            Form::Known => match runtime.capture(one_by_one)? {
                Some(graph) => {
                    graph.launch()?;
                    self.form = Form::Graph(graph);
                    Ok(())
                }
                None => {
                    self.form = Form::Plain;
                    one_by_one(runtime)
                }
            },
            Form::Graph(graph) => Ok(graph.launch()?),
            Form::Plain => one_by_one(runtime),
        }
    }
}

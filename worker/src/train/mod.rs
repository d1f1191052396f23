//! What a worker does with its engine: training steps, evaluation, and the loop that serves a server.

mod prepared;
mod serve;
mod tally;

pub use serve::{Ended, run};
pub use tally::{Tally, rank, softmax};

//! What a worker does with its engine: training steps, evaluation, and the loop that serves a
//! server.

mod ahead;
mod prepared;
mod serve;
mod tally;

pub(crate) use ahead::Ahead;
pub use serve::{Ended, run};
pub use tally::{Tally, rank, softmax};

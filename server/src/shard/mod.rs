//! A run on several servers: each has a part of the vectors, the first decides for all.

mod link;
mod member;
mod store;

pub(crate) use link::{FromShard, Muster, Place, Probe, Remote, ToShard, Welcome};
pub(crate) use member::Member;
pub use member::{ShardSetup, serve_shard};
pub(crate) use store::Store;

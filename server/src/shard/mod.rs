//! A run on several servers: each has a part of the vectors, the first decides for all.

mod follower;
mod link;
mod store;

pub(crate) use follower::Follower;
pub use follower::{FollowerSetup, follow};
pub(crate) use link::{
    FollowerLink, FromFollower, Muster, Place, Probe, SavedPart, ToFollower, Welcome,
};
pub(crate) use store::Store;

//! A run on several servers: each has a part of the vectors, the first decides for all.

mod follow;
mod follower;
mod link;
mod store;

pub use follow::{FollowerSetup, follow};
pub(crate) use follower::Follower;
pub(crate) use link::{
    FollowerLink, FromFollower, Muster, Place, Probe, SavedPart, ToFollower, Welcome,
};
pub(crate) use store::Store;

//! The coordinator under schedules of deaths and delays, without a network.

mod evaluations;
mod failures;
mod leasing;
mod membership;
mod schedule;
mod shards;
mod world;

pub(super) use world::job;

//! The services in virtual time, called as a transport calls them.

#![expect(
    clippy::unwrap_used,
    reason = "a test that fails may say so by panicking"
)]

mod admission;
mod holds;
mod launches;
mod metrics;
mod nodes;
mod simulation;
mod uploads;
mod world;

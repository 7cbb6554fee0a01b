//! A SuperNode between a real SuperLink and ClientApps that are played, in virtual time.

#![expect(
    clippy::unwrap_used,
    reason = "a test that fails may say so by panicking"
)]

mod ahead;
mod apps;
mod calls;
mod life;
mod objects;
mod restart;
mod resume;
mod world;

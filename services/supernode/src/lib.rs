//! The SuperNode: one site of a federation.
//!
//! [`SuperNode`] joins a SuperLink as a node, stays online, and works off instructions one after the
//! other: [`fetch`] brings an instruction and its objects here ([`ahead`] those that are still being uploaded), [`job`] sees it through, [`deliver`]
//! brings the reply back. [`appio`] serves the ClientApps and their launchers, which do the work.
//! What lies on the [`desk`] in between is in memory, objects are in files, and so is what must not be
//! forgotten ([`journal`]); [`recover`] goes on with that after the process was killed.
//!
//! Nothing here knows how calls travel. Start with [`node`].

mod ahead;
pub mod appio;
pub mod config;
mod deliver;
mod desk;
mod fetch;
mod job;
mod journal;
pub mod metrics;
mod patience;
mod recover;
mod runs;

pub mod node;

pub use appio::AppIoApi;
pub use config::Config;
pub use node::{Ended, SuperNode};

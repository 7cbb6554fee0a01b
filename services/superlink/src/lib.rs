//! The SuperLink: what Flower's hub decides.
//!
//! Three services share one state: [`fleet`] for SuperNodes, [`appio`] for ServerApps and their
//! launchers, [`control`] for users. [`inbox`] does all the waiting, [`gate`] all the refusing by
//! run status, [`validate`] judges what clients send; [`metrics`] and [`survey`] tell how it goes. Nothing here knows how calls travel or where
//! state is kept.

pub mod appio;
pub mod control;
mod entropy;
pub mod fleet;
mod gate;
mod inbox;
pub mod metrics;
mod partials;
mod progress;
mod receive;
pub mod sweep;
pub mod validate;

mod superlink;
mod survey;

pub use control::Runtime;
pub use flwr_state::{Entropy, SystemEntropy};
pub use superlink::{Config, SuperLink};

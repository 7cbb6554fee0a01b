//! The SuperLink: what Flower's hub decides.
//!
//! Three services share one state: [`fleet`] for SuperNodes, [`appio`] for ServerApps and their
//! launchers, [`control`] for users. [`inbox`] does all the waiting, [`gate`] all the refusing by
//! run status, [`validate`] judges what clients send. Nothing here knows how calls travel or where
//! state is kept.

pub mod appio;
pub mod control;
mod entropy;
pub mod fleet;
mod gate;
mod gather;
mod inbox;
mod partials;
pub mod sweep;
pub mod validate;

mod superlink;

pub use control::Runtime;
pub use flwr_state::{Entropy, SystemEntropy};
pub use superlink::SuperLink;

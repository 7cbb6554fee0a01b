//! The asking side of the dialect of Flower 1.22: what its SuperNodes, launchers and apps send, and how they read what
//! comes back.

mod adapter;
mod appio;
mod fleet;
mod object;
mod read;
mod words;

pub use adapter::AdapterAsker;
pub use appio::{AppIoAsker, AppIoService};
pub use fleet::FleetAsker;
pub(crate) use words::telling;

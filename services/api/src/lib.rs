//! The contract between Flower's processes: what they call each other with.
//!
//! [`ids`], [`message`], [`object`], [`run`] are the nouns; [`fleet`], [`appio`] and [`control`]
//! are the three services, each a table of calls, a trait to implement and a client to call.
//! [`reason`] numbers the refusals that peers tell apart, [`launchers`] says who may launch apps.
//! Nothing here knows how calls travel, which Flower release a peer runs, or where state is kept.

#[macro_use]
mod service;

pub mod appio;
pub mod control;
pub mod fleet;
pub mod ids;
pub mod launchers;
pub mod message;
pub mod object;
pub mod reason;
pub mod run;
pub mod time;

pub use ids::{FabHash, MessageId, NodeId, ObjectId, RunId, Token};
pub use launchers::Launchers;
pub use message::{AppError, Delivery, Message, Metadata, ObjectTree, Payload};
pub use reason::Reason;
pub use run::{Fab, FabInfo, Phase, Run, RunStatus, Scalar, SubStatus, UserConfig};
pub use time::UnixTime;

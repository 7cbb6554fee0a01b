//! The SuperExec: starts the stock programs of Flower's apps, watches them, and ends them.
//!
//! [`Launcher`] asks a daemon through an [`AppIoClient`](flwr_api::appio::AppIoClient) which apps
//! wait, and starts a process for each. Where the daemon is not reached in the clear, an
//! [`Endpoint`] gives every process a listener of its own, and a [`Relay`] makes its calls.
//!
//! Nothing here knows how calls travel, and nothing reads flags or signals.

mod ahead;
mod app;
mod config;
mod endpoint;
mod environment;
mod interpreter;
mod launcher;
pub mod metrics;
mod output;
mod process;
mod program;
mod relay;
mod start;
mod tasks;
mod zygote;

pub use config::{Config, JOIN_SECRET_VARIABLE, Kind, Reach, Warm};
pub use endpoint::{Endpoint, Opened};
pub use environment::Environment;
pub use launcher::Launcher;
pub use output::Output;
pub use program::{NotInstalled, find_program};
pub use relay::Relay;

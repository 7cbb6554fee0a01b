//! What a launcher is told.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use crate::endpoint::Endpoint;
use crate::environment::Environment;

/// The environment variable that a launcher may be given its join secret in. Apps do not inherit it:
/// their code is not the launcher's.
pub const JOIN_SECRET_VARIABLE: &str = "FLWR_QUIC_JOIN_SECRET";

/// How apps are launched.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which apps.
    pub kind: Kind,
    /// Where apps are installed: Flower's home directory, resolved.
    pub flwr_dir: PathBuf,
    /// The directories to look for the app's program in, as in `PATH`.
    pub path: OsString,
    /// What apps find in their environment.
    pub environment: Environment,
    /// How many apps run at once.
    pub apps_max: usize,
    /// How starts are made quick.
    pub warm: Warm,
    /// How many processes wait for work, where they can: at a relay, unless `warm` is off.
    pub idle_max: usize,
}

/// How the start of an app's process is taken off the time that its run waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Warm {
    /// Not at all: each starts an interpreter when there is work.
    Off,
    /// Interpreters are started ahead and wait for work at their relays.
    Prestart,
    /// Processes are forked from one interpreter that has imported what they begin with.
    #[default]
    Fork,
}

/// Which apps a launcher is for: a plug-in type of `flower-superexec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One message at a node.
    ClientApp,
    /// One run at a SuperLink.
    ServerApp,
    /// One run that is simulated.
    Simulation,
}

/// How the processes of apps reach the daemon.
#[derive(Clone, Debug)]
pub enum Reach {
    /// By themselves, in the clear, at this `host:port`.
    Direct(String),
    /// Through a [`Relay`](crate::Relay), each at an endpoint of its own.
    Relayed(Arc<dyn Endpoint>),
}

impl Kind {
    /// The name of the stock program.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::ClientApp => "flwr-clientapp",
            Self::ServerApp => "flwr-serverapp",
            Self::Simulation => "flwr-simulation",
        }
    }

    /// The flag that tells the program where to call (Flower 1.22, `flwr/common/args.py`).
    pub(crate) const fn address_flag(self) -> &'static str {
        match self {
            Self::ClientApp => "--clientappio-api-address",
            Self::ServerApp => "--serverappio-api-address",
            Self::Simulation => "--simulationio-api-address",
        }
    }

    /// Whether the app reports the end of its run by itself.
    pub(crate) const fn owns_its_run(self) -> bool {
        match self {
            Self::ClientApp => false,
            Self::ServerApp | Self::Simulation => true,
        }
    }
}

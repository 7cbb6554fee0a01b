//! Where the parts of a role meet.

pub(crate) mod appio;
mod checks;
mod credentials;
mod node;
pub(crate) mod quic;
pub(crate) mod rest;
mod serve;
mod state;
pub(crate) mod superexec;
pub(crate) mod superlink;
pub(crate) mod supernode;
mod tls;

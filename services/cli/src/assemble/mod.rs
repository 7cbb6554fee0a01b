//! Where the parts of a role meet.

pub(crate) mod appio;
mod checks;
pub(crate) mod serve;
pub(crate) mod superlink;
mod tls;

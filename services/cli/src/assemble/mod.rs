//! Where the parts of a role meet.

mod checks;
pub(crate) mod serve;
pub(crate) mod superlink;

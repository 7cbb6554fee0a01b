//! The crate from outside: both ends over real sockets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod battery;
mod budget;
mod bundles;
mod corpus;
mod counters;
mod early;
mod hostile;
mod links;
mod outage;
mod proof;
mod raw;
mod refusals;
mod relay;
mod renewal;
mod road;
mod support;

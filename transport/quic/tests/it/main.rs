//! The crate from outside: both ends over real sockets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod battery;
mod corpus;
mod early;
mod hostile;
mod proof;
mod relay;
mod support;

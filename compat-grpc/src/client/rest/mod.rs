//! Calling over plain HTTP, as `flower-supernode --rest` 1.22 does (`client/rest_client`): a message is the body of a
//! POST, its answer that of the response, and a refusal is a status of HTTP with words.
//!
//! HTTP/1 carries one call at a time over a connection, so that each call under way has one of its own (`lines`); what
//! [`RestConnector`] opens is the first. No caller proves who it is: Flower's servers know no way to.

mod answer;
mod caller;
mod connector;
mod lines;

pub use caller::RestCaller;
#[cfg(test)]
pub(crate) use caller::kebab;
pub use connector::RestConnector;
pub(super) use lines::Lease;

//! Calling a server over gRPC, or over plain HTTP.
//!
//! [`GrpcConnector`] opens one HTTP/2 connection, with or without TLS; [`GrpcCaller`] makes calls over it. What is said
//! is decided by an [`Asking`], the asking side of a dialect: a call becomes the head of one gRPC message, to which the
//! call's body is appended as it comes, and the answer becomes a reply. An object in an answer is handed on while it
//! still arrives, so that it is never whole in memory. [`RestConnector`] says the same over plain HTTP (`rest`).
//!
//! Left out: connecting again and repeating calls, which is [`Redial`](flwr_transport::Redial)'s.

mod asking;
mod caller;
mod connector;
mod credentials;
mod dial;
mod endpoint;
mod errors;
mod greeting;
mod question;
mod reply;
mod request;
mod rest;

pub use asking::{Answer, Asked, Asking, Peek, Peeked, Received};
pub use caller::GrpcCaller;
pub use connector::GrpcConnector;
pub use credentials::{Credentials, NodeSigner};
pub use endpoint::Settings;
pub(crate) use errors::{REASON_HEADER, from_grpc};
pub use greeting::WITH_TLS;
pub use question::{Questioner, Said, Shaken};
#[cfg(test)]
pub(crate) use rest::kebab;
pub use rest::{RestCaller, RestConnector};

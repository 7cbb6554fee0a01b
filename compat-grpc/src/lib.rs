//! Stock Flower programs over gRPC, and over plain HTTP where they can.
//!
//! [`accept`] accepts connections (TCP, optionally TLS), [`serving`] serves HTTP on them, [`grpc`]
//! turns one HTTP request into one gRPC message and back, [`exchange`] answers it; a *dialect* turns the messages of one
//! range of Flower releases into the calls of a service: [`f1`] is Flower 1.22's. [`auth`] proves
//! who calls, [`buffers`] keeps memory for the next message, [`holds`] says how long a stock client
//! may be kept waiting, [`health`] is the standard health service.
//!
//! [`client`] calls servers, with the asking side of the dialect ([`f1::ask`]).
//!
//! Behaviour is Flower's own business (`flwr-superlink`); what is here is form: paths, field
//! numbers, headers, status texts.
//!
//! tonic gives the status codes and their encoding. Framing is done here because objects are most
//! of the traffic: a request is read into one buffer of its own size, and an object's bytes go out
//! without being copied into a message first.

mod accept;
pub mod auth;
pub mod buffers;
pub mod client;
pub mod dialect;
mod exchange;
pub mod f1;
mod framing;
mod grpc;
pub mod health;
pub mod holds;
pub mod listener;
mod preface;
mod reading;
mod serving;
mod status;

pub use accept::Limits;
pub use auth::CallerAuth;
pub use buffers::Buffers;
pub use client::{
    Asking, Credentials, GrpcCaller, GrpcConnector, NodeSigner, RestCaller, RestConnector,
};
pub use dialect::Dialect;
pub use holds::Holds;
pub use listener::GrpcListener;

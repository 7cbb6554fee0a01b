//! Moving calls between two processes.
//!
//! A *call* is a request, an optional stream of bytes, a reply, and an optional stream back.
//! This crate defines calls ([`Call`], [`Reply`], [`Body`], [`Status`]), who makes and answers
//! them ([`Caller`], [`Handler`]) and who carries them ([`Connector`], [`Acceptor`]), and holds the
//! in-process transport ([`memory`]) that tests run on. [`redial`] keeps a connection over any
//! transport, [`Counted`] counts the calls of any, [`budget`] bounds the memory of all, [`Current`] is what can be
//! replaced while it is used, [`Standing`] says whether a process is of use. It knows nothing of Flower, and services
//! written against it never learn which
//! transport carries them.
//!
//! Start with [`call`], then [`serve`].

pub mod body;
pub mod budget;
pub mod call;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod counted;
mod current;
pub mod drain;
pub mod memory;
pub mod metrics;
pub mod peer;
pub mod prefer;
pub mod presence;
pub mod redial;
pub mod serve;
mod standing;
pub mod status;

pub use body::{Body, BodyError, Gathered};
pub use budget::{MemoryBudget, Room};
pub use call::{Call, EventStream, Protocol, Reply, Request, Tail, Wire};
pub use counted::{Counted, count_unread};
pub use current::Current;
pub use drain::{Drain, DrainGuard};
pub use peer::{AccountId, Bearer, Identity, Peer, PublicKey};
pub use prefer::Prefer;
pub use presence::Presence;
pub use redial::{LinkState, Policy, Redial};
pub use serve::{
    Acceptor, Caller, Closed, ConnectError, Connector, Context, Drained, DynCaller, Handler,
    ServeError,
};
pub use standing::Standing;
pub use status::{Code, Status};

//! What the SuperLink remembers: the traits its services are written against, and the back end
//! that keeps everything in memory.
//!
//! Each trait is one aggregate and each method one atomic step; [`LinkState`] is all of them. State
//! never reads a clock and never draws a random number: both are arguments, so that every test can
//! be repeated. Waiting is not state's business either: [`wakeups`] only says when to look again.
//!
//! Start with [`link`]. The rules are written once, as tables in memory ([`State`]); a back end is a
//! [`storage`] that makes them last. [`memory`] is the one that does not, and [`conformance`] holds
//! the rules all of them must keep. What is kept in files is apart from that:
//! [`fabs`] are app bundles, [`files`] are objects for whoever has no room for them in memory,
//! [`journal`] are notes that outlive a process, [`logs`] what a run's log keeps.

pub mod clock;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod disk;
pub mod entropy;
pub mod error;
pub mod fabs;
pub mod files;
pub mod journal;
pub mod link;
pub mod logs;
pub mod memory;
mod state;
pub mod storage;
mod tables;
pub mod wakeups;

pub use clock::{Clock, SystemClock};
pub use entropy::{Entropy, SystemEntropy, fraction, token};
pub use error::{Limit, StoreError, StoreResult};
pub use fabs::{DiskFabs, Fabs};
pub use files::{Arrival, ObjectFiles, Partial, Pin, PutFile};
pub use journal::Journal;
pub use link::{
    AppOutputs, Arrived, Beat, Census, Delivered, FinishedRuns, LaunchQueue, LinkState, LogSlice,
    Mailbox, NewNode, NewRun, NodeCreation, Nodes, Object, Objects, Put, Queue, Replies,
    ReplyOutcome, RunLogs, Runs, StartedApp, Tokens, Transition,
};
pub use memory::{Bounds, Memory, MemoryState};
pub use state::State;
pub use storage::{Beginning, Storage};
pub use tables::rows;
pub use wakeups::{Subscription, Topic, Wakeups};

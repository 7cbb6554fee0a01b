//! One interpreter that has imported what apps begin with, and forks a process for each app.
//!
//! Interpreter start and imports are nearly all of what an app without work costs; a fork costs a
//! twentieth. `zygote.py` is the other half and says what is said on the socket between them. The
//! zygote is an extra: whenever it cannot fork, the caller starts the program itself. One that dies
//! is replaced, and what it has forked lives on.

mod connection;
mod forked;
mod keeper;

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use rustix::process::Pid;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::environment::Environment;
use crate::interpreter::Interpreter;
use crate::output::Output;
use crate::process::{Ended, Pipes};
use connection::Fork;
use keeper::Keeper;

pub(crate) use forked::Forked;

/// A zygote that is kept running. Dropping it ends the zygote, not what it has forked.
#[derive(Debug)]
pub(crate) struct Zygote {
    asks: mpsc::Sender<Ask>,
    keeper: AbortOnDropHandle<()>,
}

/// What a zygote is asked for.
#[derive(Debug)]
pub(crate) enum Ask {
    /// A process. The answer is nothing where none could be forked.
    Fork(Fork, oneshot::Sender<Option<Forked>>),
    /// How a process has ended, which was forked by the zygote of this generation.
    Reap(Pid, u64, oneshot::Sender<Ended>),
}

impl Zygote {
    /// Keeps a zygote for `script`. Needs a tokio runtime.
    pub(crate) fn start(
        script: &Path,
        interpreter: Interpreter,
        environment: Environment,
        output: Output,
    ) -> Self {
        let (asks, received) = mpsc::channel(ASKS_MAX);
        let keeper = Keeper::new(script, interpreter, environment, output, asks.downgrade());
        Self {
            asks,
            keeper: AbortOnDropHandle::new(tokio::spawn(keeper.keep(received))),
        }
    }

    /// Ends the zygote, once everything it has forked is gone.
    pub(crate) async fn stop(self) {
        drop(self.asks);
        // One that does not end is killed.
        let _late = timeout(END, self.keeper).await;
    }

    /// Forks a process that runs the script; nothing where that is not possible now.
    pub(crate) async fn fork(&self, arguments: &[OsString], pipes: &Pipes) -> Option<Forked> {
        let fork = Fork::new(arguments, pipes)?;
        let (reply, forked) = oneshot::channel();
        let asked = async {
            self.asks.send(Ask::Fork(fork, reply)).await.ok()?;
            forked.await.ok()?
        };
        // A fork that comes too late is never told to go.
        let mut forked = timeout(PATIENCE, asked).await.ok().flatten()?;
        forked.go();
        Some(forked)
    }
}

/// Questions that wait for their turn.
const ASKS_MAX: usize = 64;
/// How long a fork may take: no longer than a start of the program itself would. The first one waits
/// for the imports.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a zygote may take to end.
const END: Duration = Duration::from_secs(1);

//! A process and the group it leads.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tracing::{debug, error, warn};

use crate::environment::Environment;
use crate::zygote::Forked;

/// A process that was started. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    kin: Kin,
}

#[derive(Debug)]
enum Kin {
    /// Our own child.
    Child(Child),
    /// A zygote's.
    Forked(Forked),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The system said how.
    As(ExitStatus),
    /// It is gone, and nobody knows how.
    Unknown,
}

/// Where a process writes to.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

impl Process {
    /// Starts a program, in a process group of its own: what a terminal sends to this process does
    /// not reach it.
    pub(crate) fn start(
        program: &Path,
        arguments: &[OsString],
        environment: &Environment,
        pipes: Pipes,
    ) -> io::Result<Self> {
        let mut command = Command::new(program);
        environment.apply(&mut command);
        let child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(pipes.stdout)
            .stderr(pipes.stderr)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("the process has no id"))?;
        Ok(Self {
            pid,
            kin: Kin::Child(child),
        })
    }

    /// Takes charge of a process that a zygote has forked.
    pub(crate) fn forked(forked: Forked) -> Self {
        Self {
            pid: forked.pid(),
            kin: Kin::Forked(forked),
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits for the end and takes the process off the system's list. Cancel safe; returns once.
    pub(crate) async fn ended(&mut self) -> Ended {
        let child = match &mut self.kin {
            Kin::Child(child) => child,
            Kin::Forked(forked) => return forked.ended().await,
        };
        match child.wait().await {
            Ok(status) => Ended::As(status),
            Err(error) => {
                error!(pid = %self.pid, %error, "a process cannot be waited for");
                Ended::Unknown
            }
        }
    }

    /// Asks the group to end, insists after a while, and leaves nothing of it.
    pub(crate) async fn end(&mut self) -> Ended {
        self.signal(Signal::TERM);
        if let Ok(ended) = timeout(GRACE, self.ended()).await {
            // What the process started itself. Ids are handed out in turn, so the group's is not
            // somebody else's already.
            kill_process_group(self.pid, Signal::KILL).ok();
            return ended;
        }
        warn!(pid = %self.pid, "an app does not end by itself, killing it");
        self.signal(Signal::KILL);
        self.ended().await
    }

    /// Signals the group, or the process where it does not lead one yet.
    fn signal(&self, signal: Signal) {
        let is_reaped = match &self.kin {
            Kin::Child(child) => child.id().is_none(),
            Kin::Forked(forked) => forked.is_reaped(),
        };
        if is_reaped {
            return;
        }
        let signalled = kill_process_group(self.pid, signal);
        if let Err(error) = signalled.or_else(|_| kill_process(self.pid, signal)) {
            debug!(pid = %self.pid, %error, ?signal, "not signalled");
        }
    }
}

impl Ended {
    /// Whether the program said that all went well.
    pub(crate) fn is_success(self) -> bool {
        matches!(self, Self::As(status) if status.success())
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::As(status) => status.fmt(f),
            Self::Unknown => f.write_str("exit status unknown"),
        }
    }
}

/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

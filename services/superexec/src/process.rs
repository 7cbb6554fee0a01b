//! A process and the group it leads.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tracing::{debug, error, warn};

/// A process that was started. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    child: Child,
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
    pub(crate) fn start(program: &Path, arguments: &[OsString], pipes: Pipes) -> io::Result<Self> {
        let child = Command::new(program)
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
        Ok(Self { pid, child })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits for the end and takes the process off the system's list. Cancel safe.
    pub(crate) async fn ended(&mut self) -> Ended {
        match self.child.wait().await {
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
            self.signal(Signal::KILL);
            return ended;
        }
        warn!(pid = %self.pid, "an app does not end by itself, killing it");
        self.signal(Signal::KILL);
        self.ended().await
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = kill_process_group(self.pid, signal) {
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

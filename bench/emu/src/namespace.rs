//! A network namespace of our own, made and removed with iproute2.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Error;

/// Removed when it is dropped; processes that still run in it keep it alive without its name.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// A name that is taken is an error. Loopback is up; IPv6 is off, since its own packets would blur the counts.
    pub(crate) fn create(name: &str) -> Result<Self, Error> {
        ip(&["netns", "add", name])?;
        let namespace = Self {
            name: name.to_owned(),
        };
        namespace.ip(&["link", "set", "lo", "up"])?;
        namespace.within(disable_ipv6)??;
        Ok(namespace)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` on this namespace.
    pub(crate) fn ip(&self, arguments: &[&str]) -> Result<(), Error> {
        ip(&[&["-n", &self.name], arguments].concat())
    }

    /// Runs this in a thread inside the namespace.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let handle = File::open(format!("/run/netns/{}", self.name))?;
        let inside = || -> io::Result<T> {
            move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        };
        let result = thread::scope(|scope| scope.spawn(inside).join());
        match result {
            Ok(result) => Ok(result?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Makes this the congestion control of new TCP sockets. A namespace may only choose what all programs may use,
    /// hence the algorithm is allowed for as long as the choice takes.
    pub(crate) fn choose_congestion_control(&self, algorithm: &str) -> Result<(), Error> {
        let _allowed = Allowed::add(algorithm)?;
        let chosen = self.within(|| {
            fs::write(CONGESTION_CONTROL, algorithm)?;
            fs::read_to_string(CONGESTION_CONTROL)
        })?;
        let reason = match chosen {
            Ok(chosen) if chosen.trim() == algorithm => return Ok(()),
            Ok(chosen) => format!("it stays {}", chosen.trim()),
            Err(error) => error.to_string(),
        };
        Err(Error::CongestionControl(algorithm.to_owned(), reason))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "delete", &self.name]) {
            crate::warn(&error);
        }
    }
}

/// An algorithm that all programs may use; what was allowed before is allowed again after. Other emulators wait that
/// long: each would take away again what the other needs, or leave it behind.
struct Allowed {
    before: Option<String>,
    _lock: File,
}

impl Allowed {
    fn add(algorithm: &str) -> Result<Self, Error> {
        let lock = File::open(ALLOWED)?;
        lock.lock()?;
        let before = fs::read_to_string(ALLOWED)?;
        let before = before.trim();
        if before
            .split_whitespace()
            .any(|allowed| allowed == algorithm)
        {
            return Ok(Self {
                before: None,
                _lock: lock,
            });
        }
        fs::write(ALLOWED, format!("{before} {algorithm}")).map_err(|error| {
            let reason = match error.kind() {
                io::ErrorKind::NotFound => "this kernel does not have it".to_owned(),
                _ => error.to_string(),
            };
            Error::CongestionControl(algorithm.to_owned(), reason)
        })?;
        Ok(Self {
            before: Some(before.to_owned()),
            _lock: lock,
        })
    }
}

impl Drop for Allowed {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && let Err(error) = fs::write(ALLOWED, before)
        {
            crate::warn(&error);
        }
    }
}

/// Ctrl-C ends the emulator, which then needs `ip`: it runs in a process group of its own.
fn ip(arguments: &[&str]) -> Result<(), Error> {
    let mut command = Command::new("ip");
    command
        .args(arguments)
        .stdin(Stdio::null())
        .process_group(0);
    let output = command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::Unable("it needs the command ip of iproute2"),
        _ => Error::Io(error),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Ip {
        arguments: arguments.join(" "),
        message,
    })
}

fn disable_ipv6() -> io::Result<()> {
    for scope in ["all", "default"] {
        match fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

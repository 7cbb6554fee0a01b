//! The SuperExec that a SuperLink runs beside itself to start apps: found, started, watched, ended.
//!
//! It inherits environment, working directory, stdout and stderr, and ends by itself when this process is gone.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use flwr_transport::Drain;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};
use tracing::{debug, error, info, warn};

use crate::{
    address::Address,
    exit::{Exit, FLOWER_RELEASE},
};

/// A SuperExec to run.
#[derive(Debug)]
pub(crate) struct SuperExec {
    program: PathBuf,
    args: Vec<OsString>,
}

impl SuperExec {
    /// Finds the program on `PATH`. `appio` is what the API for it listens on.
    ///
    /// # Errors
    /// When it is not installed; says what to install.
    pub(crate) fn find(appio: &Address, plugin: Plugin) -> Result<Self, Exit> {
        let path = env::var_os("PATH").unwrap_or_default();
        let program = on_path(PROGRAM, &path).ok_or_else(|| {
            Exit::Problem(format!(
                "{PROGRAM} is not on PATH: install it with `pip install flwr=={FLOWER_RELEASE}` (and activate that \
                 environment), or give --isolation process and start it yourself."
            ))
        })?;
        Ok(Self {
            program,
            args: arguments(appio, plugin, std::process::id()),
        })
    }

    /// Keeps it running until the drain is asked, then ends it. When this returns, no child is left.
    pub(crate) async fn supervise(self, drain: Drain) {
        let mut backoff = Backoff::default();
        while !drain.is_requested() {
            let started = Instant::now();
            match self.spawn() {
                Ok(mut child) => {
                    info!(pid = child.id(), "Launched {PROGRAM}");
                    tokio::select! {
                        biased;
                        () = drain.requested() => return end(child).await,
                        status = child.wait() => {
                            // Ctrl-C reaches the child too, maybe before it reaches us.
                            if asked_within(&drain, SAME_SIGNAL).await {
                                return;
                            }
                            error!("{PROGRAM} {}: runs cannot start until it is back", outcome(&status));
                        }
                    }
                }
                Err(error) => error!(
                    program = %self.program.display(), %error,
                    "Cannot start {PROGRAM}: runs cannot start until it is there"
                ),
            }
            let delay = backoff.after(started.elapsed());
            warn!("Launching {PROGRAM} again in {} s", delay.as_secs());
            if asked_within(&drain, delay).await {
                return;
            }
        }
    }

    fn spawn(&self) -> std::io::Result<Child> {
        Command::new(&self.program)
            .args(&self.args)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
    }
}

/// What it starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Plugin {
    /// ServerApps.
    ServerApp,
    /// Simulations.
    Simulation,
}

/// The waits between launches: longer each time, short again after a life that was long enough.
#[derive(Debug)]
struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: BACKOFF_MIN }
    }
}

impl Backoff {
    /// How long to wait after a child that lived for `life`.
    fn after(&mut self, life: Duration) -> Duration {
        if life >= LONG_LIFE {
            self.next = BACKOFF_MIN;
        }
        let wait = self.next;
        self.next = (wait * 2).min(BACKOFF_MAX);
        wait
    }
}

async fn asked_within(drain: &Drain, wait: Duration) -> bool {
    tokio::select! {
        biased;
        () = drain.requested() => true,
        () = sleep(wait) => false,
    }
}

/// Asks a child to end, insists after a while, and takes its status off the system's list.
async fn end(mut child: Child) {
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw);
    // The id is the child's until its status is taken below.
    if let Some(pid) = pid
        && let Err(error) = kill_process(pid, Signal::TERM)
    {
        debug!(%error, "{PROGRAM} cannot be signalled");
    }
    match timeout(GRACE, child.wait()).await {
        Ok(status) => debug!("{PROGRAM} {}", outcome(&status)),
        Err(_elapsed) => {
            warn!("{PROGRAM} does not end by itself, killing it");
            if let Err(error) = child.kill().await {
                error!(%error, "{PROGRAM} cannot be killed");
            }
        }
    }
}

fn outcome(status: &std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => format!("ended ({status})"),
        Err(error) => format!("cannot be watched ({error})"),
    }
}

/// As in Flower, which gives simulations the address as it is.
fn arguments(appio: &Address, plugin: Plugin, own_pid: u32) -> Vec<OsString> {
    let (target, plugin) = match plugin {
        Plugin::ServerApp => (appio.local_target(), "serverapp"),
        Plugin::Simulation => (appio.clone(), "simulation"),
    };
    [
        "--insecure",
        "--appio-api-address",
        &target.to_string(),
        "--plugin-type",
        plugin,
        "--parent-pid",
        &own_pid.to_string(),
    ]
    .map(OsString::from)
    .to_vec()
}

fn on_path(program: &str, path: &OsStr) -> Option<PathBuf> {
    env::split_paths(path)
        .map(|directory| directory.join(program))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

const PROGRAM: &str = "flower-superexec";
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
const LONG_LIFE: Duration = Duration::from_secs(60);
/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// How far apart parent and child see one Ctrl-C.
const SAME_SIGNAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_arguments_are_flowers() {
        let check = |appio: &str, plugin, line: &str| {
            let arguments = arguments(&Address::parse(appio).unwrap(), plugin, 4711);
            let line = format!("--insecure --appio-api-address {line} --parent-pid 4711");
            assert_eq!(arguments.join(OsStr::new(" ")), OsString::from(line));
        };
        let (server_app, simulation) = (Plugin::ServerApp, Plugin::Simulation);
        for (appio, line) in [
            ("0.0.0.0:9091", "127.0.0.1:9091 --plugin-type serverapp"),
            ("[::]:9091", "[::1]:9091 --plugin-type serverapp"),
            ("10.1.2.3:9091", "10.1.2.3:9091 --plugin-type serverapp"),
        ] {
            check(appio, server_app, line);
        }
        check(
            "0.0.0.0:9096",
            simulation,
            "0.0.0.0:9096 --plugin-type simulation",
        );
    }

    #[test]
    fn waits_grow_to_half_a_minute_and_start_over_after_a_long_life() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..7)
            .map(|_| backoff.after(Duration::ZERO).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff.after(Duration::from_secs(59)).as_secs(), 30);
        assert_eq!(backoff.after(Duration::from_secs(60)).as_secs(), 1);
        assert_eq!(backoff.after(Duration::from_secs(1)).as_secs(), 2);
    }

    #[test]
    fn programs_are_executable_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["plain", "directory", "good"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let plain = dir.path().join("plain").join(PROGRAM);
        fs::write(&plain, "").unwrap();
        fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
        fs::create_dir(dir.path().join("directory").join(PROGRAM)).unwrap();
        let good = dir.path().join("good").join(PROGRAM);
        fs::write(&good, "").unwrap();
        fs::set_permissions(&good, fs::Permissions::from_mode(0o755)).unwrap();

        let path = env::join_paths(
            ["absent", "plain", "directory", "good"].map(|name| dir.path().join(name)),
        )
        .unwrap();
        assert_eq!(on_path(PROGRAM, &path), Some(good));
        let path = env::join_paths([dir.path().join("plain")]).unwrap();
        assert_eq!(on_path(PROGRAM, &path), None);
    }
}

//! The SuperExec that a daemon runs beside itself to start apps: started, watched, ended.
//!
//! It is this same program in another role. It inherits environment, working directory, stdout and stderr, is let in by a
//! join secret that nobody else knows, and ends by itself when this process is gone.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use clap::ValueEnum;
use flwr_certs::JoinSecret;
use flwr_superexec::{JOIN_SECRET_VARIABLE, find_program};
use flwr_transport::Drain;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};
use tracing::{debug, error, info, warn};

use crate::{
    address::Address,
    args::{
        config,
        health::HEALTH_VARIABLE,
        log::LogFormat,
        metrics::METRICS_VARIABLE,
        superexec::{PluginType, WarmApps},
    },
    exit::Exit,
};

/// A SuperExec to run.
#[derive(Debug)]
pub(crate) struct SuperExec {
    program: PathBuf,
    args: Vec<OsString>,
    join_secret: JoinSecret,
}

/// What a SuperExec of this process is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launches<'a> {
    /// Which apps it launches.
    pub(crate) plugin: PluginType,
    /// What the AppIo API that it asks listens on.
    pub(crate) appio: &'a Address,
    /// What lets it in there.
    pub(crate) join_secret: &'a JoinSecret,
    /// Where apps are installed, if it was said.
    pub(crate) flwr_dir: Option<&'a Path>,
    /// How apps are started.
    pub(crate) warm_apps: WarmApps,
    /// How it logs.
    pub(crate) log_format: LogFormat,
    /// Whether its apps go on when this process is gone.
    pub(crate) outlive_parent: bool,
}

impl SuperExec {
    /// A SuperExec that is this program.
    ///
    /// # Errors
    /// When the system does not tell where this program is, or the apps' program is not installed.
    pub(crate) fn own(launches: Launches<'_>) -> Result<Self, Exit> {
        let path = env::var_os("PATH").unwrap_or_default();
        find_program(launches.plugin.kind(), &path).map_err(|error| {
            Exit::Problem(format!(
                "{error}, or give --isolation process and start a SuperExec yourself."
            ))
        })?;
        let program = env::current_exe().map_err(|error| Exit::because(&error))?;
        Ok(Self {
            program,
            args: arguments(launches, std::process::id()),
            join_secret: launches.join_secret.clone(),
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
                            error!("{PROGRAM} {}: apps cannot start until it is back", outcome(&status));
                        }
                    }
                }
                Err(error) => error!(
                    program = %self.program.display(), %error,
                    "Cannot start the {PROGRAM}: apps cannot start until it is there"
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
            .env(JOIN_SECRET_VARIABLE, self.join_secret.expose())
            .env_remove(config::VARIABLE)
            // The ports are taken.
            .env_remove(HEALTH_VARIABLE)
            .env_remove(METRICS_VARIABLE)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
    }
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

fn arguments(launches: Launches<'_>, own_pid: u32) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec![
        "superexec".into(),
        "--insecure".into(),
        "--appio-api-address".into(),
        launches.appio.local_target().to_string().into(),
        "--plugin-type".into(),
        word(launches.plugin),
        "--parent-pid".into(),
        own_pid.to_string().into(),
        "--warm-apps".into(),
        word(launches.warm_apps),
        "--log-format".into(),
        word(launches.log_format),
    ];
    if launches.outlive_parent {
        args.push("--outlive-parent".into());
    }
    if let Some(dir) = launches.flwr_dir {
        args.extend(["--flwr-dir".into(), dir.into()]);
    }
    args
}

/// A value as the command line spells it.
fn word(value: impl ValueEnum) -> OsString {
    let word = value.to_possible_value();
    word.map(|word| word.get_name().into()).unwrap_or_default()
}

const PROGRAM: &str = "SuperExec";
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
const LONG_LIFE: Duration = Duration::from_secs(60);
/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// How far apart parent and child see one Ctrl-C.
const SAME_SIGNAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn the_arguments_name_what_it_is_for() {
        let appio = Address::parse("0.0.0.0:9091").unwrap();
        let launches = Launches {
            plugin: PluginType::ServerApp,
            appio: &appio,
            join_secret: &JoinSecret::generate().unwrap(),
            flwr_dir: Some(Path::new("/flwr")),
            warm_apps: WarmApps::Fork,
            log_format: LogFormat::Json,
            outlive_parent: true,
        };
        let line = "superexec --insecure --appio-api-address 127.0.0.1:9091 --plugin-type serverapp --parent-pid 4711 \
                    --warm-apps fork --log-format json --outlive-parent --flwr-dir /flwr";
        let arguments = arguments(launches, 4711);
        assert_eq!(arguments.join(OsStr::new(" ")), OsString::from(line));
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
}

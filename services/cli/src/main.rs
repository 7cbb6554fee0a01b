//! `flwr-quic`: Flower's SuperLink, SuperNode and SuperExec in Rust, and the commands that make their certificates and
//! keys and look after their state.
//!
//! This crate is the only one that reads flags, environment and signals, and the only one that installs globals.
//! Start with [`assemble`].

use std::{
    env,
    future::Future,
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::info;

use crate::{
    args::{Asked, Command, config::FromFile, log::LogOptions},
    exit::Exit,
};

mod address;
mod args;
mod assemble;
mod certs;
mod doctor;
mod exit;
mod health;
mod home;
mod keys;
mod launch;
mod listen;
mod log_file;
mod log_line;
mod memory;
mod metrics;
mod output;
mod peer;
mod renewal;
mod signals;
mod state;
mod status;
mod telemetry;

fn main() -> ExitCode {
    match args::parse(env::args_os()) {
        Ok(Asked { command, file }) => run(command, &file),
        Err(answer) => {
            // Nobody is left to hear that stdout or stderr is closed.
            let _closed = if answer.is_error {
                io::stderr().write_all(answer.text.as_bytes())
            } else {
                io::stdout().write_all(answer.text.as_bytes())
            };
            ExitCode::from(if answer.is_error { USAGE_ERROR } else { 0 })
        }
    }
}

fn run(command: Command, file: &FromFile) -> ExitCode {
    match command {
        Command::Certs(command) => output::finish(certs::run(&command)),
        Command::Doctor(options) => verdict(doctor::run(*options)),
        Command::Health(options) => output::finish(health::run(&options)),
        Command::Keys(command) => output::finish(keys::run(&command)),
        Command::State(command) => output::finish(state::run(&command)),
        Command::Status(options) => verdict(status::run(*options)),
        Command::SuperExec(options) => {
            let log = options.log.clone();
            daemon(&log, file, assemble::superexec::run(*options))
        }
        Command::SuperLink(options) => {
            let log = options.log.clone();
            daemon(&log, file, assemble::superlink::run(*options))
        }
        Command::SuperNode(options) => {
            let log = options.log.clone();
            daemon(&log, file, assemble::supernode::run(*options))
        }
    }
}

/// Runs a command that prints a report, and fails if that is not good.
fn verdict(report: impl Future<Output = Result<bool, Exit>>) -> ExitCode {
    match block_on(report) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(exit) => output::finish(Err(exit)),
    }
}

/// Runs one of the long-lived processes to its end.
fn daemon(
    log: &LogOptions,
    file: &FromFile,
    role: impl Future<Output = Result<(), Exit>>,
) -> ExitCode {
    allow_many_files();
    let started = telemetry::start(log);
    if let Some(summary) = file.summary() {
        info!("{summary}");
    }
    match started.and_then(|()| block_on(role)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => telemetry::say_why(&exit.with_origin(file)),
    }
}

/// Lets this process have as many files and connections as its user may, up to what the systemd units say. Shells set a
/// lower limit for the sake of programs that wait with select(2), which only matters to those that have so many open.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(FILES, |maximum| maximum.min(FILES));
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            ..limit
        };
        // Then it has fewer.
        let _refused = setrlimit(Resource::Nofile, raised);
    }
}

const FILES: u64 = 65_536;

fn block_on<T>(role: impl Future<Output = Result<T, Exit>>) -> Result<T, Exit> {
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        return Err(Exit::Problem(
            "A crypto provider is installed already.".into(),
        ));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Exit::because(&error))?;
    let outcome = runtime.block_on(role);
    runtime.shutdown_timeout(LEFTOVERS);
    outcome
}

/// As every program's that cannot read its command line.
const USAGE_ERROR: u8 = 2;
/// For blocking work that nobody waits for any more.
const LEFTOVERS: Duration = Duration::from_secs(1);

//! `flwr-emu`: a link with delay, loss and a limited rate between two network namespaces.
//!
//! For kernels without netem. One TUN device in each namespace, one thread that carries packets from one to the other.
//! What happens to a packet is decided in [`direction`], which knows neither devices nor clocks. Needs root and
//! iproute2; ends with status 77 where it cannot work.

mod control;
mod device;
mod direction;
mod input;
mod loss;
mod namespace;
mod profile;
mod pump;
mod random;
mod statistics;
mod up;

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// A link with delay, loss and a limited rate between two network namespaces.
#[derive(Debug, Parser)]
#[command(name = "flwr-emu", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the link; it lasts until a signal comes or stdin closes
    Up(Box<up::Options>),
    /// List the built-in profiles, one JSON object
    Profiles,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Up(options) => up::run(&options),
        Command::Profiles => list(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            warn(&error);
            ExitCode::from(if matches!(error, Error::Unable(_)) {
                UNABLE
            } else {
                1
            })
        }
    }
}

fn list() -> Result<(), Error> {
    print(&json!(profile::parse(profile::PROFILES)?));
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot emulate a link here: {0}")]
    Unable(&'static str),
    #[error(transparent)]
    Profile(#[from] profile::Error),
    #[error("ip {arguments}: {message}")]
    Ip { arguments: String, message: String },
    #[error("cannot choose the TCP congestion control {0}: {1}")]
    CongestionControl(String, String),
    #[error("{0} and {1} must be two addresses of one network of {2} bits")]
    Addresses(Ipv4Addr, Ipv4Addr, u8),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What needs root, and a kernel with TUN.
fn check_abilities() -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::Unable("it needs root"));
    }
    if OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .is_err()
    {
        return Err(Error::Unable("it needs /dev/net/tun"));
    }
    Ok(())
}

fn profiles(file: Option<&Path>) -> Result<String, Error> {
    match file {
        Some(path) => Ok(fs::read_to_string(path)?),
        None => Ok(profile::PROFILES.to_owned()),
    }
}

/// The time since the start of the machine.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// One line on stdout. Whoever started us may be gone; the link is taken down all the same.
fn print(line: &Value) {
    writeln!(io::stdout(), "{line}").ok();
}

fn warn(message: &impl Display) {
    writeln!(io::stderr(), "flwr-emu: {message}").ok();
}

const MTU: u16 = 1_500;
const UNABLE: u8 = 77;

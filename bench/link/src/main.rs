//! `flwr-link`: moves objects over one connection, to measure what carries them.
//!
//! Both ends speak Fleet over the project's own QUIC or gRPC, with the same handler behind them ([`handler`]). A plain
//! exchange over TLS ([`plain`]) is the yardstick. What is measured is printed as lines of JSON; links and repetitions
//! are the business of whoever starts the two ends.

mod arrivals;
mod certificates;
mod handler;
mod idle;
mod latency;
mod mover;
mod plain;
mod run;
mod serve;
mod source;
mod transport;
mod usage;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::Value;

/// Moves objects over one connection, to measure what carries them.
#[derive(Debug, Parser)]
#[command(name = "flwr-link", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a CA and a certificate for the addresses of the emulated link
    Certs {
        /// Where they are written
        directory: PathBuf,
    },
    /// Answer until SIGTERM comes or stdin closes
    Serve(serve::Options),
    /// Hold connections on which nothing happens until stdin closes
    Idle(idle::Options),
    /// Move objects and report
    Run(run::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Certs { directory } => certificates::make(&directory),
        Command::Serve(options) => serve::serve(&options).await,
        Command::Idle(options) => idle::idle(&options).await,
        Command::Run(options) => run::run(&options).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(io::stderr(), "flwr-link: {error}").ok();
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Certificates(#[from] flwr_certs::CertError),
    #[error(transparent)]
    ClientTls(#[from] flwr_certs::ClientTlsError),
    #[error(transparent)]
    ServerTls(#[from] flwr_certs::TlsError),
    #[error(transparent)]
    Connect(#[from] flwr_transport::ConnectError),
    #[error(transparent)]
    Serve(#[from] flwr_transport::ServeError),
    #[error("a call failed: {0}")]
    Call(#[from] flwr_transport::Status),
    #[error("an object came incomplete: {0}")]
    Body(#[from] flwr_transport::BodyError),
    #[error("the server refuses the object or has none")]
    Refused,
    #[error(
        "over TLS alone there are no control calls beside a transfer: leave out --control-period-ms"
    )]
    NoControl,
    #[error(
        "TCP has its congestion control from the network namespace unless it is --transport tls: leave out \
         --tcp-congestion"
    )]
    NamespaceOnly,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One line on stdout.
fn print(line: &Value) -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

//! Starting the process of an app, with everything that lives as long as it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use flwr_api::appio::AppIoClient;
use flwr_api::{RunId, Token};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::config::{Kind, Reach};
use crate::endpoint::{Endpoint, Opened};
use crate::environment::Environment;
use crate::output::{Label, Output, Stream};
use crate::process::{Pipes, Process};
use crate::program::Program;
use crate::relay::Relay;
use crate::zygote::Zygote;

/// Starts processes of one kind of app.
#[derive(Debug)]
pub(crate) struct Starter {
    pub(crate) kind: Kind,
    pub(crate) program: Program,
    pub(crate) environment: Environment,
    pub(crate) reach: Reach,
    pub(crate) client: AppIoClient,
    pub(crate) output: Output,
    pub(crate) zygote: Option<Zygote>,
}

/// A process that was started for an app.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) process: Process,
    label: Label,
    /// The relay, and where it listens; nothing where the process reaches the daemon by itself.
    relayed: Option<(Arc<Relay>, Opened)>,
    forwards: [JoinHandle<()>; 2],
}

impl Starter {
    /// Starts the process of an app that has its run.
    pub(crate) async fn start(&self, run: RunId, token: &Token) -> io::Result<Started> {
        match &self.reach {
            Reach::Direct(address) => {
                let started = self.launch(address, token, None).await?;
                started.name(run);
                Ok(started)
            }
            Reach::Relayed(endpoint) => {
                let started = self.start_ahead(&**endpoint).await?;
                started.bind(run, token);
                Ok(started)
            }
        }
    }

    /// Starts a process that waits at its relay until it is bound to a run.
    pub(crate) async fn start_ahead(&self, endpoint: &dyn Endpoint) -> io::Result<Started> {
        let placeholder = placeholder()?;
        let relay = Relay::new(self.kind, Arc::clone(self.client.caller()), placeholder);
        let relay = Arc::new(relay);
        let opened = endpoint.open(Arc::clone(&relay))?;
        let address = opened.address.clone();
        let token = relay.placeholder().clone();
        self.launch(&address, &token, Some((relay, opened))).await
    }

    async fn launch(
        &self,
        address: &str,
        token: &Token,
        relayed: Option<(Arc<Relay>, Opened)>,
    ) -> io::Result<Started> {
        let arguments = self.program.arguments(address, token);
        let (stdout, stdout_writer) = pipe()?;
        let (stderr, stderr_writer) = pipe()?;
        let pipes = Pipes {
            stdout: stdout_writer,
            stderr: stderr_writer,
        };
        let forked = match &self.zygote {
            Some(zygote) => zygote.fork(&arguments, &pipes).await,
            None => None,
        };
        let process = match forked {
            Some(forked) => Process::forked(forked),
            None => Process::start(self.program.file(), &arguments, &self.environment, pipes)?,
        };
        let label = Label::default();
        let forward = |from, stream| {
            let forward = self
                .output
                .clone()
                .forward(from, stream, Arc::clone(&label));
            tokio::spawn(forward)
        };
        let forwards = [forward(stdout, Stream::Out), forward(stderr, Stream::Err)];
        Ok(Started {
            process,
            label,
            relayed,
            forwards,
        })
    }
}

impl Started {
    /// Gives a process that waits its run.
    pub(crate) fn bind(&self, run: RunId, token: &Token) {
        self.name(run);
        if let Some((relay, _)) = &self.relayed {
            relay.bind(run, token);
        }
    }

    /// Closes what the process called, now that it has ended, and waits for its last lines. What it
    /// left running goes on writing.
    pub(crate) async fn close(self) {
        drop(self.relayed);
        let last = Instant::now() + LAST_LINES;
        for forward in self.forwards {
            // A task that panicked has logged it.
            let _late = timeout_at(last, forward).await;
        }
    }

    fn name(&self, run: RunId) {
        let label = format!("run {run}");
        self.label.set(label).expect("an app works for one run");
    }
}

/// The end that this process reads from, and the one for the app. Neither is inherited by accident.
pub(crate) fn pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    Ok((pipe::Receiver::from_owned_fd(reader.into())?, writer.into()))
}

/// A token of the usual form that no daemon has issued.
fn placeholder() -> io::Result<Token> {
    let mut bytes = [0; 128];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Token::from_random(&bytes))
}

/// How long output is waited for after the process has ended.
const LAST_LINES: Duration = Duration::from_secs(1);

//! Keeps a zygote running and asks it what callers ask.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::connection::{Connection, Fork};
use super::{ASKS_MAX, Ask, Forked};
use crate::environment::Environment;
use crate::interpreter::Interpreter;
use crate::output::Output;
use crate::process::Ended;

/// The task behind a [`Zygote`](super::Zygote).
#[derive(Debug)]
pub(super) struct Keeper {
    script: PathBuf,
    interpreter: Interpreter,
    environment: Environment,
    output: Output,
    /// For what is forked. Weak, so that the questions end with those who ask.
    asks: mpsc::WeakSender<Ask>,
    /// How many zygotes there were.
    generation: u64,
    /// Forks that wait for a zygote.
    waiting: VecDeque<Ask>,
}

/// Why a zygote is of no use any more.
enum Over {
    /// It has ended or does not answer.
    Broken(String),
    /// What it has imported was replaced on disk.
    Outdated,
    /// Nobody will ask again.
    Unneeded,
}

impl Keeper {
    pub(super) fn new(
        script: &Path,
        interpreter: Interpreter,
        environment: Environment,
        output: Output,
        asks: mpsc::WeakSender<Ask>,
    ) -> Self {
        Self {
            script: script.to_owned(),
            interpreter,
            environment,
            output,
            asks,
            generation: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Ends when nobody asks any more, or when there is no way to a zygote.
    pub(super) async fn keep(mut self, mut asks: mpsc::Receiver<Ask>) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let begun = Instant::now();
            let imported = installed(&self.script);
            let over = match self.open(&mut asks).await {
                Ok(connection) => {
                    debug!("the zygote is ready");
                    self.serve(connection, &mut asks, imported).await
                }
                Err(error) if self.generation == 1 => {
                    warn!(%error, "there is no zygote: each app starts an interpreter of its own");
                    return;
                }
                Err(error) => Over::Broken(error.to_string()),
            };
            match over {
                Over::Unneeded => return,
                Over::Outdated => {
                    info!("what apps begin with was replaced: starting another zygote")
                }
                Over::Broken(why) => {
                    if begun.elapsed() >= LONG_LIFE {
                        backoff = BACKOFF_MIN;
                    }
                    warn!(
                        why,
                        "the zygote is gone, starting another in {} s",
                        backoff.as_secs()
                    );
                    self.pause(backoff, &mut asks).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    async fn open(&mut self, asks: &mut mpsc::Receiver<Ask>) -> io::Result<Connection> {
        self.generation += 1;
        let opening = Connection::open(
            &self.interpreter,
            &self.script,
            &self.environment,
            &self.output,
        );
        let mut opening = std::pin::pin!(opening);
        loop {
            let ask = tokio::select! {
                biased;
                opened = &mut opening => return opened,
                Some(ask) = asks.recv() => ask,
            };
            match ask {
                Ask::Fork(..) if self.waiting.len() < ASKS_MAX => self.waiting.push_back(ask),
                ask => decline(ask),
            }
        }
    }

    async fn serve(
        &mut self,
        mut connection: Connection,
        asks: &mut mpsc::Receiver<Ask>,
        imported: Option<Installed>,
    ) -> Over {
        loop {
            let ask = match self.waiting.pop_front() {
                Some(ask) => ask,
                None => tokio::select! {
                    biased;
                    ended = connection.ended() => return Over::Broken(ended.to_string()),
                    ask = asks.recv() => match ask {
                        Some(ask) => ask,
                        None => {
                            connection.close().await;
                            return Over::Unneeded;
                        }
                    }
                },
            };
            let answered = match ask {
                Ask::Fork(..) if installed(&self.script) != imported => {
                    self.waiting.push_front(ask);
                    return Over::Outdated;
                }
                Ask::Fork(fork, reply) => self.fork(&mut connection, fork, reply).await,
                Ask::Reap(pid, generation, reply) if generation == self.generation => {
                    // Whoever asked may be gone.
                    connection.reap(pid).await.map(|ended| {
                        reply.send(ended).ok();
                    })
                }
                ask @ Ask::Reap(..) => {
                    decline(ask);
                    Ok(())
                }
            };
            if let Err(error) = answered {
                return Over::Broken(error.to_string());
            }
        }
    }

    async fn fork(
        &self,
        connection: &mut Connection,
        fork: Fork,
        reply: oneshot::Sender<Option<Forked>>,
    ) -> io::Result<()> {
        if reply.is_closed() {
            return Ok(());
        }
        let forked = match connection.fork(fork).await? {
            Ok(newborn) => self
                .asks
                .upgrade()
                .map(|asks| Forked::new(newborn, self.generation, asks)),
            Err(why) => {
                warn!(why, "the zygote does not fork");
                None
            }
        };
        // Whoever asked may be gone: then what was forked is dropped, and ends.
        reply.send(forked).ok();
        Ok(())
    }

    /// Declines what is asked for a while.
    async fn pause(&mut self, wait: Duration, asks: &mut mpsc::Receiver<Ask>) {
        self.waiting.drain(..).for_each(decline);
        let end = Instant::now() + wait;
        loop {
            tokio::select! {
                biased;
                () = sleep_until(end) => return,
                ask = asks.recv() => match ask {
                    Some(ask) => decline(ask),
                    None => return,
                }
            }
        }
    }
}

/// Answers that there is no zygote.
fn decline(ask: Ask) {
    // Whoever asked may be gone.
    match ask {
        Ask::Fork(_, reply) => reply.send(None).map_err(drop).unwrap_or_default(),
        Ask::Reap(_, _, reply) => reply.send(Ended::Unknown).map_err(drop).unwrap_or_default(),
    }
}

/// What tells one installation of a script from the next.
#[derive(Debug, PartialEq, Eq)]
struct Installed {
    inode: u64,
    modified: (i64, i64),
}

fn installed(script: &Path) -> Option<Installed> {
    let meta = fs::metadata(script).ok()?;
    Some(Installed {
        inode: meta.ino(),
        modified: (meta.mtime(), meta.mtime_nsec()),
    })
}

const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// After a life of this length the next zygote comes at once.
const LONG_LIFE: Duration = Duration::from_secs(60);

//! Asks a daemon which apps wait, and launches them.

use std::sync::Arc;
use std::time::Duration;

use flwr_api::appio::{AppIoClient, ListAppsToLaunch, RequestToken};
use flwr_api::{RunId, Token};
use flwr_transport::{Bearer, Drain, Standing, Status};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use crate::ahead::Ahead;
use crate::app::App;
use crate::config::{Config, Reach, Warm};
use crate::interpreter::Interpreter;
use crate::metrics;
use crate::output::Output;
use crate::program::{NotInstalled, Program};
use crate::start::Starter;
use crate::tasks::Owner;
use crate::zygote::Zygote;

/// Launches the apps of one daemon.
#[derive(Debug)]
pub struct Launcher {
    starter: Starter,
    warm: Warm,
    idle_max: usize,
    apps_max: usize,
    standing: Standing,
}

/// A launcher at work.
struct Running {
    starter: Arc<Starter>,
    ahead: Ahead,
    apps: Owner,
    slots: Arc<Semaphore>,
    /// Ends the apps that run, and with them everything else.
    drain: Drain,
    /// Ends everything but the apps that run.
    retire: Drain,
    trouble: Trouble,
}

/// How a question for work went.
#[derive(Clone, Copy)]
enum Asked {
    /// Something was launched.
    Launched,
    /// There was nothing to do.
    Nothing,
    /// The daemon could not be asked.
    Failed,
}

impl Launcher {
    /// A launcher for the daemon that `client` asks. What `client` presents is for the launcher's
    /// own questions; apps present their tokens.
    ///
    /// # Errors
    /// When the app's program is not installed.
    pub fn new(
        config: Config,
        reach: Reach,
        client: AppIoClient,
        output: Output,
    ) -> Result<Self, NotInstalled> {
        let program = Program::find(config.kind, &config.path, config.flwr_dir)?;
        metrics::begin(config.kind);
        Ok(Self {
            starter: Starter {
                kind: config.kind,
                program,
                environment: config.environment,
                reach,
                client,
                output,
                zygote: None,
            },
            warm: config.warm,
            idle_max: config.idle_max,
            apps_max: config.apps_max.max(1),
            standing: Standing::default(),
        })
    }

    /// Whether the daemon lets itself be asked for work, as far as the last answer tells; yes before
    /// the first, since a daemon that has no work takes its time.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Launches apps until the drain is asked, then ends those that run; or until `retire` is, then
    /// waits for them. When this returns, no process is left. Dropping it kills them.
    pub async fn run(mut self, drain: Drain, retire: Drain) {
        let (idle_max, apps_max) = match self.warm {
            Warm::Off => (0, self.apps_max),
            Warm::Prestart | Warm::Fork => (self.idle_max, self.apps_max),
        };
        if self.warm == Warm::Fork {
            self.starter.zygote = zygote(&self.starter);
        }
        let output = self.starter.output.clone();
        let starter = Arc::new(self.starter);
        let mut running = Running {
            ahead: Ahead::new(&starter, idle_max),
            starter,
            apps: Owner::new(),
            slots: Arc::new(Semaphore::new(apps_max)),
            drain,
            retire,
            trouble: Trouble {
                latest: None,
                standing: self.standing,
            },
        };
        running.launch_all().await;
        running.end().await;
        output.flush().await;
    }
}

impl Running {
    /// Asks for work again and again until the drain is asked.
    async fn launch_all(&mut self) {
        let (drain, retire) = (self.drain.clone(), self.retire.clone());
        self.ahead.keep(self.apps.tasks(), &retire);
        let mut backoff = PAUSE;
        loop {
            let slot = tokio::select! {
                biased;
                () = drain.requested() => return,
                () = retire.requested() => return,
                slot = Arc::clone(&self.slots).acquire_owned() => slot,
            };
            let slot = slot.expect("nobody closes the slots");
            let asked = Instant::now();
            let outcome = self.ask(slot).await;
            let pause = match outcome {
                Asked::Launched => Duration::ZERO,
                Asked::Nothing => PAUSE,
                Asked::Failed => backoff,
            };
            backoff = match outcome {
                Asked::Failed => (backoff * 2).min(PAUSE_MAX),
                Asked::Launched | Asked::Nothing => PAUSE,
            };
            // Counted from the question: a daemon that holds it needs no pause.
            tokio::select! {
                biased;
                () = drain.requested() => return,
                () = retire.requested() => return,
                () = sleep_until(asked + pause) => {}
            }
        }
    }

    /// Waits for the apps, which end with the drain, and for those that wait for work with it.
    async fn end(self) {
        self.retire.begin();
        self.apps.finished().await;
        drop(self.ahead);
        if let Some(zygote) = Arc::into_inner(self.starter).and_then(|starter| starter.zygote) {
            zygote.stop().await;
        }
    }

    /// Asks for work once.
    async fn ask(&mut self, slot: OwnedSemaphorePermit) -> Asked {
        let call = ListAppsToLaunch { wait: WAIT };
        let runs = self
            .starter
            .client
            .list_apps_to_launch(call, Instant::now() + WAIT + ANSWER);
        let runs = tokio::select! {
            biased;
            () = self.drain.requested() => return Asked::Nothing,
            () = self.retire.requested() => return Asked::Nothing,
            runs = runs => runs,
        };
        let runs = match runs {
            Ok(runs) => runs,
            Err(status) => {
                self.trouble.note(&status);
                return Asked::Failed;
            }
        };
        self.trouble.end();
        let mut asked = Asked::Nothing;
        let mut next_slot = Some(slot);
        for run in runs {
            let slot = next_slot
                .take()
                .or_else(|| Arc::clone(&self.slots).try_acquire_owned().ok());
            let Some(slot) = slot else { break };
            match self.claim(run).await {
                Ok(Some(token)) => {
                    self.launch(run, token, slot);
                    asked = Asked::Launched;
                }
                Ok(None) => next_slot = Some(slot),
                Err(status) => {
                    self.trouble.note(&status);
                    return Asked::Failed;
                }
            }
        }
        asked
    }

    /// Claims a launch. Not cut short by a drain: a claim that got lost would block the run.
    async fn claim(&self, run: RunId) -> Result<Option<Token>, Status> {
        let call = RequestToken { run };
        self.starter
            .client
            .request_token(call, Instant::now() + ANSWER)
            .await
    }

    /// Leaves an app to a process that waits for one, or to one of its own.
    fn launch(&self, run: RunId, token: Token, slot: OwnedSemaphorePermit) {
        let app = App {
            kind: self.starter.kind,
            run,
            client: self.starter.client.bearing(Bearer::new(token.expose())),
            token,
            drain: self.drain.clone(),
            slot: Some(slot),
        };
        if let Err(app) = self.ahead.give(app) {
            let starter = Arc::clone(&self.starter);
            let tasks = self.apps.tasks();
            tasks.spawn(async move { app.run(&starter).await });
        }
    }
}

/// A zygote for the program, where that is a Python script.
fn zygote(starter: &Starter) -> Option<Zygote> {
    let script = starter.program.file();
    let why = match Interpreter::of(script) {
        Ok(Some(interpreter)) => {
            let environment = starter.environment.clone();
            let output = starter.output.clone();
            return Some(Zygote::start(script, interpreter, environment, output));
        }
        Ok(None) => "it is not a Python script".to_owned(),
        Err(error) => error.to_string(),
    };
    warn!(script = %script.display(), why, "there is no zygote: each app starts an interpreter of its own");
    None
}

/// Logs what goes wrong once, and that it is over.
#[derive(Debug)]
struct Trouble {
    latest: Option<Status>,
    standing: Standing,
}

impl Trouble {
    fn note(&mut self, status: &Status) {
        self.standing.bad(format_args!(
            "the daemon cannot be asked for work: {status}"
        ));
        if self.latest.as_ref() == Some(status) {
            debug!(%status, "still no launches");
        } else {
            warn!(%status, "no launches for the moment");
            self.latest = Some(status.clone());
        }
    }

    fn end(&mut self) {
        self.standing.good();
        if self.latest.take().is_some() {
            info!("launches are possible again");
        }
    }
}

/// How long a daemon is asked to wait for work.
const WAIT: Duration = Duration::from_secs(25);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Between two questions that brought nothing, as upstream.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(10);

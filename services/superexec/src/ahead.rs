//! Processes that are started ahead and wait at their relays for work.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flwr_transport::Drain;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::app::App;
use crate::config::Reach;
use crate::endpoint::Endpoint;
use crate::start::{Started, Starter};
use crate::tasks::Tasks;

/// Keeps a number of idle processes.
#[derive(Debug)]
pub(crate) struct Ahead {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    starter: Arc<Starter>,
    /// One permit for each idle process that is missing.
    missing: Arc<Semaphore>,
    idle: Mutex<VecDeque<oneshot::Sender<App>>>,
    /// Idle processes that have ended since one got work.
    deaths: AtomicU32,
}

impl Ahead {
    /// Nothing runs until [`Self::keep`] is awaited.
    pub(crate) fn new(starter: &Arc<Starter>, idle_max: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                starter: Arc::clone(starter),
                missing: Arc::new(Semaphore::new(idle_max)),
                idle: Mutex::default(),
                deaths: AtomicU32::new(0),
            }),
        }
    }

    /// Gives an app to the process that has waited longest; gives it back where none waits.
    pub(crate) fn give(&self, mut app: App) -> Result<(), App> {
        loop {
            let Some(idle) = self.shared.idle().pop_front() else {
                return Err(app);
            };
            match idle.send(app) {
                Ok(()) => return Ok(()),
                // That one has just ended.
                Err(back) => app = back,
            }
        }
    }

    /// Starts what is missing until the drain is asked. Everything runs as `tasks`.
    pub(crate) fn keep(&self, tasks: &Tasks, drain: &Drain) {
        let (shared, drain) = (Arc::clone(&self.shared), drain.clone());
        let all = tasks.clone();
        tasks.spawn(async move { shared.keep(&all, &drain).await });
    }
}

impl Shared {
    async fn keep(self: &Arc<Self>, tasks: &Tasks, drain: &Drain) {
        let Reach::Relayed(endpoint) = &self.starter.reach else {
            return;
        };
        loop {
            let next = async {
                let permit = Arc::clone(&self.missing).acquire_owned().await;
                let started = self.start(&**endpoint).await?;
                Some((started, permit.expect("nobody closes it")))
            };
            let next = tokio::select! {
                biased;
                () = drain.requested() => return,
                next = next => next,
            };
            if let Some((started, permit)) = next {
                let (shared, drain) = (Arc::clone(self), drain.clone());
                tasks.spawn(async move { shared.wait(started, permit, &drain).await });
            }
        }
    }

    /// Starts one, later each time that it did not help.
    async fn start(&self, endpoint: &dyn Endpoint) -> Option<Started> {
        let deaths = self.deaths.load(Ordering::Relaxed);
        if deaths > 0 {
            sleep((BACKOFF_MIN * 2_u32.pow(deaths.min(10) - 1)).min(BACKOFF_MAX)).await;
        }
        let started = self.starter.start_ahead(endpoint).await;
        started
            .inspect_err(|error| {
                self.deaths.fetch_add(1, Ordering::Relaxed);
                warn!(%error, "no process can be started ahead");
            })
            .ok()
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<oneshot::Sender<App>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stays with an idle process until it has work, and then until that is done, or until it ends.
    async fn wait(&self, mut started: Started, permit: OwnedSemaphorePermit, drain: &Drain) {
        let (sender, mut work) = oneshot::channel();
        self.idle().push_back(sender);
        tokio::select! {
            biased;
            () = drain.requested() => {
                started.process.end().await;
            }
            ended = started.process.ended() => {
                warn!("an idle process ended: {ended}");
                self.deaths.fetch_add(1, Ordering::Relaxed);
            }
            // The other end is kept until it is used.
            Ok(app) = &mut work => return self.work(started, app, permit).await,
        }
        started.close().await;
        work.close();
        self.idle().retain(|idle| !idle.is_closed());
        drop(permit);
        // What came in the same moment.
        if let Ok(app) = work.try_recv() {
            app.run(&self.starter).await;
        }
    }

    /// Gives a process its run, and stays with it until that is done.
    async fn work(&self, started: Started, app: App, permit: OwnedSemaphorePermit) {
        debug!(run_id = app.run.0, "an idle process has work");
        self.deaths.store(0, Ordering::Relaxed);
        started.bind(app.run, &app.token);
        let supervised = app.supervise(started);
        let mut supervised = std::pin::pin!(supervised);
        // The next one is started when this one has got going, and not beside it.
        tokio::select! {
            biased;
            () = &mut supervised => return,
            () = sleep(HEAD_START) => drop(permit),
        }
        supervised.await;
    }
}

/// How long an app has the machine to itself before its successor is started.
const HEAD_START: Duration = Duration::from_secs(2);
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

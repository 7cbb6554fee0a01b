//! The runs this node has had instructions of: their apps and what their ClientApps left behind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use flwr_api::appio::AppContext;
use flwr_api::fleet::NodeRun;
use flwr_api::{NodeId, RunId, UserConfig};
use tokio::time::Instant;

/// What is known of a run.
#[derive(Debug)]
pub(crate) struct Run {
    /// What the SuperLink says of it.
    pub(crate) described: NodeRun,
    /// The node that its apps run on.
    pub(crate) node: NodeId,
    /// The app's configuration with the run's overrides.
    pub(crate) config: UserConfig,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    context: Option<Bytes>,
    used: Instant,
}

impl Run {
    pub(crate) fn new(described: NodeRun, node: NodeId, config: UserConfig) -> Self {
        Self {
            described,
            node,
            config,
            kept: Mutex::new(Kept {
                context: None,
                used: Instant::now(),
            }),
        }
    }

    /// What the next ClientApp of the run starts with.
    pub(crate) fn context(&self, node_config: &UserConfig) -> AppContext {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match &kept.context {
            Some(context) => AppContext::Kept(context.clone()),
            None => AppContext::Fresh {
                node: self.node,
                node_config: node_config.clone(),
                run_config: self.config.clone(),
            },
        }
    }

    /// Keeps what a ClientApp left behind.
    pub(crate) fn keep(&self, context: Bytes) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.context = Some(context);
        kept.used = Instant::now();
    }

    fn unused_since(&self) -> Instant {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.used
    }

    fn touch(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.used = Instant::now();
    }
}

/// The runs by id.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    known: Mutex<HashMap<RunId, Arc<Run>>>,
    /// What ClientApps left behind before a restart, of runs that are not known yet.
    left_behind: Mutex<HashMap<RunId, Bytes>>,
}

impl Runs {
    /// A run, which counts as used now.
    pub(crate) fn get(&self, id: RunId) -> Option<Arc<Run>> {
        let found = self.with(|known| known.get(&id).cloned());
        if let Some(run) = &found {
            run.touch();
        }
        found
    }

    /// Takes what ClientApps left behind before a restart.
    pub(crate) fn take_contexts(&self, contexts: Vec<(RunId, Bytes)>) {
        self.left_behind().extend(contexts);
    }

    /// What is known of the run from now on: what was known before, if somebody else was faster.
    pub(crate) fn add(&self, run: Run) -> Arc<Run> {
        self.with(|known| {
            let id = run.described.id;
            let known = known.entry(id).or_insert_with(|| {
                if let Some(context) = self.left_behind().remove(&id) {
                    run.keep(context);
                }
                Arc::new(run)
            });
            Arc::clone(known)
        })
    }

    /// Forgets a run that is over, and the state of its ClientApps.
    pub(crate) fn forget(&self, id: RunId) {
        self.with(|known| known.remove(&id));
        self.left_behind().remove(&id);
    }

    /// Runs that have not been used since `then`.
    pub(crate) fn unused_since(&self, then: Instant) -> Vec<RunId> {
        self.with(|known| {
            let unused = known.values().filter(|run| run.unused_since() < then);
            unused.map(|run| run.described.id).collect()
        })
    }

    fn left_behind(&self) -> MutexGuard<'_, HashMap<RunId, Bytes>> {
        self.left_behind
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<RunId, Arc<Run>>) -> T) -> T {
        work(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

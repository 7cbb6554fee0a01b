//! Tasks that end with their owner.

use std::future::Future;

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Spawns tasks. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    cut: CancellationToken,
}

/// Cuts the tasks when it is dropped.
#[derive(Debug)]
pub(crate) struct Owner {
    tasks: Tasks,
    _cut: DropGuard,
}

impl Tasks {
    /// Runs a task until it is finished or the owner is gone.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cut = self.cut.clone();
        self.tracker.spawn(async move {
            // Nothing is left to say where it is cut.
            cut.run_until_cancelled(task).await.unwrap_or_default();
        });
    }
}

impl Owner {
    pub(crate) fn new() -> Self {
        let cut = CancellationToken::new();
        Self {
            tasks: Tasks {
                tracker: TaskTracker::new(),
                cut: cut.clone(),
            },
            _cut: cut.drop_guard(),
        }
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Waits until all tasks are finished.
    pub(crate) async fn finished(&self) {
        self.tasks.tracker.close();
        self.tasks.tracker.wait().await;
    }
}

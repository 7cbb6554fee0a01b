//! Counting what is in the tables: one pass, which takes about as long as one step that concerns
//! everything.

use flwr_api::{Phase, SubStatus, UnixTime};

use super::Tables;
use crate::link::Census;

impl Tables {
    /// How much there is of everything.
    pub(crate) fn census(&self, now: UnixTime) -> Census {
        let (nodes_online, nodes_offline) = self.nodes.count(now);
        let (objects, object_bytes) = self.objects.totals();
        let mut census = Census {
            nodes_online,
            nodes_offline,
            objects,
            object_bytes,
            ..Census::default()
        };
        self.count_runs(&mut census);
        self.mailbox.count(&self.objects, &mut census);
        census
    }

    fn count_runs(&self, census: &mut Census) {
        let finished = &mut census.runs_finished;
        for run in self.runs.iter() {
            match (run.status.phase, run.status.sub) {
                (Phase::Pending, _) => census.runs_pending += 1,
                (Phase::Starting, _) => census.runs_starting += 1,
                (Phase::Running, _) => census.running.push(run.id),
                (Phase::Finished, SubStatus::Failed) => finished.failed += 1,
                (Phase::Finished, SubStatus::Stopped) => finished.stopped += 1,
                (Phase::Finished, SubStatus::Completed | SubStatus::None) => {
                    finished.completed += 1;
                }
            }
        }
    }
}

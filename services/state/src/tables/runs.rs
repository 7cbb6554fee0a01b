//! The table of runs and their leases.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use flwr_api::{Phase, Run, RunId, RunStatus, SubStatus, UnixTime};

use super::marks::Marks;
use super::rows::RunRow;
use super::{Return, interval_seconds};
use crate::link::{Beat, FIRST_LEASE_SECONDS, LEASE_EXPIRED, NewRun, Transition};

/// Heartbeats may be late by this factor.
const PATIENCE: f64 = 2.0;

/// All runs that are remembered.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    rows: HashMap<RunId, Row>,
    /// In the order of submission.
    order: BTreeMap<usize, RunId>,
    /// Pending runs by their place in `order`.
    pending: BTreeMap<usize, RunId>,
    leases: BTreeSet<Lease>,
    pub(super) marks: Marks<RunId>,
}

#[derive(Debug)]
struct Row {
    run: Run,
    /// The place in the order of submission.
    place: usize,
    options: Option<Bytes>,
    context: Option<Bytes>,
    lease: Option<Lease>,
}

/// When a run is given up, ordered by that.
#[derive(Clone, Copy, Debug)]
struct Lease {
    end: UnixTime,
    run: RunId,
}

impl Runs {
    pub(crate) fn create(&mut self, new: NewRun, now: UnixTime) -> bool {
        if self.rows.contains_key(&new.id) {
            return false;
        }
        let place = self.order.last_key_value().map_or(0, |(last, _)| last + 1);
        self.order.insert(place, new.id);
        self.pending.insert(place, new.id);
        let run = Run {
            id: new.id,
            series: new.series,
            federation: new.federation,
            fab: new.fab,
            overrides: new.overrides,
            status: RunStatus::of(Phase::Pending),
            pending_at: now,
            starting_at: None,
            running_at: None,
            finished_at: None,
        };
        let row = Row {
            run,
            place,
            options: new.options,
            context: None,
            lease: None,
        };
        self.marks.mark(new.id);
        self.rows.insert(new.id, row);
        true
    }

    pub(crate) fn get(&self, run: RunId) -> Option<&Run> {
        self.rows.get(&run).map(|row| &row.run)
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Run> {
        self.rows.values().map(|row| &row.run)
    }

    pub(crate) fn all(&self) -> Vec<Run> {
        self.order
            .values()
            .filter_map(|run| self.get(*run))
            .cloned()
            .collect()
    }

    pub(crate) fn phase(&self, run: RunId) -> Option<Phase> {
        self.get(run).map(|run| run.status.phase)
    }

    /// Whether the run is known and has not finished: only then may anything be kept for it.
    pub(crate) fn is_open(&self, run: RunId) -> bool {
        self.phase(run)
            .is_some_and(|phase| phase != Phase::Finished)
    }

    /// Pending runs in the order of their submission.
    pub(crate) fn pending(&self) -> impl Iterator<Item = RunId> {
        self.pending.values().copied()
    }

    pub(crate) fn shift(&mut self, run: RunId, to: RunStatus, now: UnixTime) -> Transition {
        let Some(row) = self.rows.get_mut(&run) else {
            return Transition::Unknown;
        };
        if !row.run.status.may_become(&to) {
            return Transition::Refused(row.run.status.clone());
        }
        self.pending.remove(&row.place);
        self.marks.mark(run);
        let phase = to.phase;
        row.run.status = to;
        let entered = match phase {
            Phase::Pending => return Transition::Refused(row.run.status.clone()),
            Phase::Starting => &mut row.run.starting_at,
            Phase::Running => &mut row.run.running_at,
            Phase::Finished => &mut row.run.finished_at,
        };
        *entered = Some(now);
        if phase == Phase::Finished {
            // It can never start again, so nobody will ask for it.
            row.context = None;
            self.lease(run, None);
        } else {
            row.run.status.sub = SubStatus::None;
            self.lease(run, Some(now.plus(FIRST_LEASE_SECONDS)));
        }
        Transition::Applied
    }

    pub(crate) fn beat(&mut self, run: RunId, interval: f64, now: UnixTime) -> Beat {
        let Some(row) = self.rows.get(&run) else {
            return Beat::Unknown;
        };
        let Some(former) = row.lease else {
            return Beat::NotAlive(row.run.status.clone());
        };
        let end = now.plus(PATIENCE * interval_seconds(interval));
        self.lease(run, Some(end));
        if end < former.end {
            // If this were forgotten, an app that is dead would count as alive for the longer time.
            self.marks.mark(run);
        } else {
            self.marks.mark_later(run);
        }
        Beat::Alive
    }

    /// Finishes one run whose lease has passed.
    pub(crate) fn expire_one(&mut self, now: UnixTime) -> Option<RunId> {
        let first = self.leases.first().filter(|lease| lease.end < now)?;
        let run = first.run;
        self.shift(
            run,
            RunStatus::finished(SubStatus::Failed, LEASE_EXPIRED),
            now,
        );
        Some(run)
    }

    /// The first moment at which [`Self::expire_one`] finds something.
    pub(crate) fn next_lease_end(&self) -> Option<UnixTime> {
        let end = self.leases.first()?.end.seconds().next_up();
        end.is_finite().then(|| UnixTime::new(end))
    }

    pub(crate) fn options(&self, run: RunId) -> Option<Bytes> {
        self.rows.get(&run)?.options.clone()
    }

    pub(crate) fn context(&self, run: RunId) -> Option<Bytes> {
        self.rows.get(&run)?.context.clone()
    }

    pub(crate) fn set_context(&mut self, run: RunId, context: Bytes) {
        if let Some(row) = self.rows.get_mut(&run) {
            row.context = Some(context);
            self.marks.mark(run);
        }
    }

    fn lease(&mut self, run: RunId, end: Option<UnixTime>) {
        let Some(row) = self.rows.get_mut(&run) else {
            return;
        };
        let new = end.map(|end| Lease { end, run });
        if let Some(old) = std::mem::replace(&mut row.lease, new) {
            self.leases.remove(&old);
        }
        self.leases.extend(new);
    }

    pub(crate) fn row(&self, run: RunId) -> Option<RunRow> {
        self.rows.get(&run).map(|row| RunRow {
            run: row.run.clone(),
            place: row.place,
            options: row.options.clone(),
            context: row.context.clone(),
            lease_end: row.lease.map(|lease| lease.end),
        })
    }

    /// Forgets runs that finished before `finished_before`, and of the others that have finished all but
    /// the latest `latest_max`.
    pub(crate) fn forget_finished(
        &mut self,
        finished_before: UnixTime,
        latest_max: usize,
    ) -> Vec<RunId> {
        let finished = self.rows.values().filter_map(|row| {
            let at = row.run.finished_at?;
            Some((at, row.place, row.run.id))
        });
        let mut finished: Vec<_> = finished.collect();
        finished
            .sort_unstable_by(|a, b| b.0.seconds().total_cmp(&a.0.seconds()).then(b.1.cmp(&a.1)));
        let old = finished.iter().position(|(at, ..)| *at < finished_before);
        let kept = old.unwrap_or(finished.len()).min(latest_max);
        let gone: Vec<_> = finished.drain(kept..).map(|(.., run)| run).collect();
        for run in &gone {
            if let Some(row) = self.rows.remove(run) {
                self.order.remove(&row.place);
                self.marks.mark(*run);
            }
        }
        gone
    }

    /// Takes runs from rows.
    pub(crate) fn restore(&mut self, rows: Vec<RunRow>, back: Return) {
        for row in rows {
            let (id, place) = (row.run.id, row.place);
            self.order.insert(place, id);
            if row.run.status.phase == Phase::Pending {
                self.pending.insert(place, id);
            }
            let restored = Row {
                run: row.run,
                place,
                options: row.options,
                context: row.context,
                lease: None,
            };
            self.rows.insert(id, restored);
            if let Some(end) = row.lease_end {
                self.lease(id, Some(back.put_off(end)));
                self.marks.mark(id);
            }
        }
    }
}

impl Ord for Lease {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let ends = self.end.seconds().total_cmp(&other.end.seconds());
        ends.then(self.run.cmp(&other.run))
    }
}

impl PartialOrd for Lease {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Lease {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Lease {}

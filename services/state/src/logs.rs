//! What a run's log keeps, and the logs of a state in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use flwr_api::{RunId, UnixTime};

use crate::link::{LOG_BYTES_MAX, LOG_SLICE_BYTES_MAX, LogSlice};

/// Least time between two entries: readers resume one microsecond after the last they have seen.
const STEP_SECONDS: f64 = 2e-6;

/// What all logs in memory may take together.
const LOGS_BYTES_MAX: usize = 256 << 20;

/// What an entry counts beside its text, so that empty ones are bounded too.
pub const ENTRY_BYTES: usize = 64;

/// The runs' logs.
#[derive(Debug)]
pub(crate) struct Logs {
    runs: HashMap<RunId, Log>,
    bytes: usize,
    bytes_max: usize,
}

impl Default for Logs {
    fn default() -> Self {
        Self::within(LOGS_BYTES_MAX)
    }
}

#[derive(Debug, Default)]
struct Log {
    entries: VecDeque<(UnixTime, Arc<str>)>,
    bytes: usize,
}

/// Entries that were read, not yet joined.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    texts: Vec<Arc<str>>,
    latest: Option<UnixTime>,
}

impl Logs {
    fn within(bytes_max: usize) -> Self {
        Self {
            runs: HashMap::new(),
            bytes: 0,
            bytes_max,
        }
    }

    pub(crate) fn append(&mut self, run: RunId, text: Arc<str>, now: UnixTime) {
        let log = self.runs.entry(run).or_default();
        let before = log.bytes;
        let time = time_after(log.entries.back().map(|(last, _)| *last), now);
        log.bytes += cost(&text);
        log.entries.push_back((time, text));
        while log.bytes > LOG_BYTES_MAX && log.entries.len() > 1 {
            let oldest = log.entries.pop_front();
            log.bytes -= oldest.map_or(0, |(_, text)| cost(&text));
        }
        self.bytes = self.bytes - before + log.bytes;
        while self.bytes > self.bytes_max
            && let Some(silent) = self.most_silent_but(run)
        {
            self.forget(silent);
        }
    }

    /// The run that was silent for longest, other than one that is not.
    fn most_silent_but(&self, run: RunId) -> Option<RunId> {
        let others = self.runs.iter().filter(|(other, _)| **other != run);
        let last = |log: &Log| log.entries.back().map_or(0.0, |(time, _)| time.seconds());
        let silent = others.min_by(|(_, a), (_, b)| last(a).total_cmp(&last(b)));
        silent.map(|(run, _)| *run)
    }

    /// Forgets the log of a run.
    pub(crate) fn forget(&mut self, run: RunId) {
        if let Some(log) = self.runs.remove(&run) {
            self.bytes -= log.bytes;
        }
    }

    pub(crate) fn after(&self, run: RunId, after: UnixTime) -> Entries {
        let mut read = Entries::default();
        let Some(log) = self.runs.get(&run) else {
            return read;
        };
        let first = log.entries.partition_point(|(time, _)| *time <= after);
        let mut bytes = 0;
        for (time, text) in log.entries.range(first..) {
            bytes += text.len();
            if bytes > LOG_SLICE_BYTES_MAX && !read.texts.is_empty() {
                break;
            }
            read.texts.push(Arc::clone(text));
            read.latest = Some(*time);
        }
        read
    }
}

impl Entries {
    /// Copies the entries into one text.
    pub(crate) fn join(self) -> LogSlice {
        LogSlice {
            text: self.texts.concat(),
            latest: self.latest,
        }
    }
}

/// The text of one entry: the end of it, if it is more than a log can keep.
#[must_use]
pub fn entry(text: &str) -> Arc<str> {
    let kept = LOG_BYTES_MAX - ENTRY_BYTES;
    let mut start = text.len().saturating_sub(kept);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].into()
}

/// What an entry counts of [`LOG_BYTES_MAX`].
#[must_use]
pub fn cost(text: &str) -> usize {
    text.len() + ENTRY_BYTES
}

/// The time of an entry that is made now, after one of the time `last`.
#[must_use]
pub fn time_after(last: Option<UnixTime>, now: UnixTime) -> UnixTime {
    last.map_or(now, |last| now.max(step(last)))
}

/// The first time that is at least a step later, also after rounding.
fn step(last: UnixTime) -> UnixTime {
    let next = last.plus(STEP_SECONDS);
    if next.seconds() - last.seconds() < STEP_SECONDS {
        return UnixTime::new(next.seconds().next_up());
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_that_was_silent_for_longest_goes_first() {
        let entry = "x".repeat(100);
        let mut logs = Logs::within(3 * cost(&entry));
        for (run, seconds) in [(1, 1.0), (2, 2.0), (1, 3.0), (3, 4.0)] {
            logs.append(RunId(run), entry.as_str().into(), UnixTime::new(seconds));
        }
        let entries = |run| logs.after(RunId(run), UnixTime::default()).texts.len();
        assert_eq!([1, 2, 3].map(entries), [2, 0, 1]);
        assert_eq!(logs.bytes, 3 * cost(&entry));
        logs.forget(RunId(1));
        assert_eq!(logs.bytes, cost(&entry));
    }
}

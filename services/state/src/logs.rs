//! What a run's log keeps, and the logs of a state in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use flwr_api::{RunId, UnixTime};

use crate::link::{LOG_BYTES_MAX, LOG_SLICE_BYTES_MAX, LogSlice};

/// Least time between two entries: readers resume one microsecond after the last they have seen.
const STEP_SECONDS: f64 = 2e-6;

/// What an entry counts beside its text, so that empty ones are bounded too.
pub const ENTRY_BYTES: usize = 64;

/// The runs' logs.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    runs: HashMap<RunId, Log>,
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
    pub(crate) fn append(&mut self, run: RunId, text: Arc<str>, now: UnixTime) {
        let log = self.runs.entry(run).or_default();
        let time = time_after(log.entries.back().map(|(last, _)| *last), now);
        log.bytes += cost(&text);
        log.entries.push_back((time, text));
        while log.bytes > LOG_BYTES_MAX && log.entries.len() > 1 {
            let oldest = log.entries.pop_front();
            log.bytes -= oldest.map_or(0, |(_, text)| cost(&text));
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

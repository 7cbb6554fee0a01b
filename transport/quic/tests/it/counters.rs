//! What a test's own end of a connection has counted.
//!
//! Tests run on one thread each, and so does all that they start: a recorder of that thread sees nothing of others.

use std::collections::BTreeMap;
use std::time::Duration;

use flwr_transport_quic::metrics as metrics_of_connections;
use metrics::LocalRecorderGuard;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tokio::time::timeout;

/// Counts until it is dropped.
pub(crate) struct Counters {
    snapshotter: Snapshotter,
    /// Reading empties the recorder's, so this is what was read so far, and what last.
    read: BTreeMap<String, (u64, u64)>,
    _recording: LocalRecorderGuard<'static>,
}

impl Counters {
    pub(crate) fn start() -> Self {
        let recorder: &'static _ = Box::leak(Box::new(DebuggingRecorder::new()));
        Self {
            snapshotter: recorder.snapshotter(),
            read: BTreeMap::new(),
            _recording: metrics::set_default_local_recorder(recorder),
        }
    }

    /// A counter, named `name{value of its first label}`.
    pub(crate) fn value(&mut self, name: &str) -> u64 {
        self.read(name).0
    }

    /// A counter of all connections, taken now.
    pub(crate) fn sampled(&mut self, name: &str) -> u64 {
        metrics_of_connections::sample();
        self.read(name).1
    }

    fn read(&mut self, name: &str) -> (u64, u64) {
        for (_, last) in self.read.values_mut() {
            *last = 0;
        }
        for (key, _, _, value) in self.snapshotter.snapshot().into_vec() {
            let DebugValue::Counter(more) = value else {
                continue;
            };
            let key = key.key();
            let label = key.labels().next().map_or("", |label| label.value());
            let name = format!("{}{{{label}}}", key.name());
            let (sum, last) = self.read.entry(name).or_default();
            *sum += more;
            *last += more;
        }
        self.read.get(name).copied().unwrap_or_default()
    }

    /// Waits until a counter is at `value`, and no further.
    pub(crate) async fn reaches(&mut self, name: &str, value: u64) {
        let reached = timeout(SOON, async {
            while self.value(name) < value {
                tokio::task::yield_now().await;
            }
        });
        let reached = reached.await;
        assert!(reached.is_ok(), "{name} is not {value}: {:#?}", self.read);
        assert_eq!(self.value(name), value, "{name}: {:#?}", self.read);
    }
}

const SOON: Duration = Duration::from_secs(15);

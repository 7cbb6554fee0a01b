//! Runs: what is being executed and how far it is.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{FabHash, RunId};
use crate::time::UnixTime;

/// Configuration of an app: flat keys with scalar values.
pub type UserConfig = BTreeMap<String, Scalar>;

/// One configured value. The type matters to apps, so it is kept as it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Scalar {
    /// A truth value.
    Bool(bool),
    /// Raw bytes.
    Bytes(Bytes),
    /// A floating point number.
    Double(f64),
    /// A signed integer.
    Sint64(i64),
    /// Text.
    String(String),
    /// An unsigned integer, used above 2^63 - 1.
    Uint64(u64),
}

/// A Flower App Bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fab {
    /// The SHA-256 of `content`.
    pub hash: FabHash,
    /// The ZIP archive.
    pub content: Bytes,
}

/// What is known of a bundle without opening it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FabInfo {
    /// `publisher/name`.
    pub id: String,
    /// The app's version.
    pub version: String,
    /// The SHA-256 of the bundle.
    pub hash: FabHash,
}

/// One execution of an app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The series it belongs to. Runs that share a series share ClientApp state, so this is unique
    /// unless a client asks otherwise; never 0.
    pub series: u64,
    /// The federation it runs in; empty is the default one.
    pub federation: String,
    /// The app.
    pub fab: FabInfo,
    /// Values that replace the app's defaults.
    pub overrides: UserConfig,
    /// How far it is.
    pub status: RunStatus,
    /// When it was submitted.
    pub pending_at: UnixTime,
    /// When its ServerApp fetched its inputs.
    pub starting_at: Option<UnixTime>,
    /// When its ServerApp began.
    pub running_at: Option<UnixTime>,
    /// When it ended.
    pub finished_at: Option<UnixTime>,
}

/// A run's status, with what is known of its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStatus {
    /// How far it is.
    pub phase: Phase,
    /// How it ended; [`SubStatus::None`] before.
    pub sub: SubStatus,
    /// A text for people.
    pub details: String,
}

/// How far a run is. A run only ever moves downwards in this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Submitted; no ServerApp yet.
    Pending,
    /// A ServerApp has its inputs.
    Starting,
    /// The ServerApp runs.
    Running,
    /// Ended.
    Finished,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SubStatus {
    /// It has not, or nobody said.
    None,
    /// The ServerApp returned.
    Completed,
    /// The ServerApp raised, or was lost.
    Failed,
    /// A user stopped it.
    Stopped,
}

impl RunStatus {
    /// A status before the end.
    #[must_use]
    pub fn of(phase: Phase) -> Self {
        Self {
            phase,
            sub: SubStatus::None,
            details: String::new(),
        }
    }

    /// An end.
    pub fn finished(sub: SubStatus, details: impl Into<String>) -> Self {
        Self {
            phase: Phase::Finished,
            sub,
            details: details.into(),
        }
    }

    /// Whether a run in this status may move to `to`.
    ///
    /// Straight down one step, or to the end from anywhere; but a run that never ran cannot have
    /// completed (Flower 1.22, `server/superlink/linkstate/utils.py`).
    #[must_use]
    pub fn may_become(&self, to: &Self) -> bool {
        match (self.phase, to.phase) {
            (Phase::Pending, Phase::Starting)
            | (Phase::Starting, Phase::Running)
            | (Phase::Running, Phase::Finished) => true,
            (Phase::Pending | Phase::Starting, Phase::Finished) => to.sub != SubStatus::Completed,
            _ => false,
        }
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.phase {
            Phase::Pending => "pending",
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Finished => "finished",
        })?;
        match self.sub {
            SubStatus::None => Ok(()),
            SubStatus::Completed => f.write_str(":completed"),
            SubStatus::Failed => f.write_str(":failed"),
            SubStatus::Stopped => f.write_str(":stopped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transitions_follow_the_table() {
        let phases = [
            Phase::Pending,
            Phase::Starting,
            Phase::Running,
            Phase::Finished,
        ];
        let subs = [
            SubStatus::None,
            SubStatus::Completed,
            SubStatus::Failed,
            SubStatus::Stopped,
        ];
        for from in phases {
            for to in phases {
                for sub in subs {
                    let to_status = RunStatus {
                        phase: to,
                        sub,
                        details: String::new(),
                    };
                    let allowed = match (from, to) {
                        (Phase::Pending, Phase::Starting) | (Phase::Starting, Phase::Running) => {
                            true
                        }
                        (Phase::Running, Phase::Finished) => true,
                        (Phase::Pending | Phase::Starting, Phase::Finished) => {
                            sub != SubStatus::Completed
                        }
                        _ => false,
                    };
                    assert_eq!(
                        RunStatus::of(from).may_become(&to_status),
                        allowed,
                        "{from:?} {to_status:?}"
                    );
                }
            }
        }
    }
}

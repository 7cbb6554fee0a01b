//! What happens in the runs that are running: rounds, and when something last happened.
//!
//! A SuperLink sees no rounds, only messages. What counts as one are the messages of a run that have
//! the same kind (`train`, `evaluate`, `query` or another) and the same group, which Flower's
//! strategies number by rounds: a round of Flower that trains and evaluates is one of each kind. It
//! begins when the first of the messages is stored and is over when the last reply to them is handed
//! out, so what a ServerApp computes between rounds does not count. One whose ServerApp stops asking
//! is never over, and one that a SuperLink was killed in is not counted.
//!
//! In memory, and bounded: the oldest of too many rounds is forgotten, and so is a run that is over.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flwr_api::{Delivery, Metadata, ObjectId, Payload, RunId};
use tokio::time::Instant;

use crate::metrics::{count_replies, count_round};

/// What happens in runs.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    runs: Mutex<HashMap<RunId, Happenings>>,
}

#[derive(Debug)]
struct Happenings {
    latest: Instant,
    /// Oldest first.
    rounds: VecDeque<Round>,
}

#[derive(Debug)]
struct Round {
    kind: &'static str,
    group: String,
    began: Instant,
    /// The instructions whose replies have not been handed out.
    open: HashSet<ObjectId>,
}

impl Progress {
    /// Something came or went that belongs to this run.
    pub(crate) fn moved(&self, run: RunId) {
        self.note(run, |_| {});
    }

    /// An instruction of the run is stored.
    pub(crate) fn instructed(&self, instruction: &Metadata) {
        let Some(root) = instruction.id.root() else {
            return;
        };
        let kind = kind_of(&instruction.message_type);
        self.note(instruction.run, |happenings| {
            let group = &instruction.group_id;
            let is_same = |round: &&mut Round| round.kind == kind && round.group == *group;
            if let Some(round) = happenings.rounds.iter_mut().find(is_same) {
                round.open.insert(root);
                return;
            }
            if happenings.rounds.len() == ROUNDS_MAX {
                happenings.rounds.pop_front();
            }
            happenings.rounds.push_back(Round {
                kind,
                group: group.clone(),
                began: happenings.latest,
                open: HashSet::from([root]),
            });
        });
    }

    /// Replies of the run were handed out, now or once more.
    pub(crate) fn answered(&self, run: RunId, replies: &[Delivery]) {
        self.note(run, |happenings| {
            for reply in replies {
                let metadata = &reply.message.metadata;
                let Some(root) = metadata.reply_to.root() else {
                    continue;
                };
                let is_error = matches!(reply.message.payload, Payload::Error(_));
                for round in &mut happenings.rounds {
                    if round.open.remove(&root) {
                        count_replies(round.kind, is_error);
                    }
                }
            }
            let now = happenings.latest;
            happenings.rounds.retain(|round| {
                let is_over = round.open.is_empty();
                if is_over {
                    count_round(round.kind, now - round.began);
                }
                !is_over
            });
        });
    }

    /// The runs that something is known of.
    pub(crate) fn known(&self) -> Vec<RunId> {
        self.runs().keys().copied().collect()
    }

    /// Forgets a run that is over.
    pub(crate) fn forget(&self, run: RunId) {
        self.runs().remove(&run);
    }

    /// The longest time that nothing has happened in one of these runs, which are those that are
    /// running. One that nothing is known of begins now.
    pub(crate) fn standstill(&self, running: &[RunId]) -> Duration {
        let mut runs = self.runs();
        let now = Instant::now();
        let longest = running.iter().map(|run| {
            let happenings = runs.entry(*run).or_insert_with(|| Happenings::since(now));
            now - happenings.latest
        });
        longest.max().unwrap_or_default()
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<RunId, Happenings>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, run: RunId, note: impl FnOnce(&mut Happenings)) {
        let now = Instant::now();
        let mut runs = self.runs();
        let happenings = runs.entry(run).or_insert_with(|| Happenings::since(now));
        happenings.latest = now;
        note(happenings);
    }
}

impl Happenings {
    fn since(now: Instant) -> Self {
        Self {
            latest: now,
            rounds: VecDeque::new(),
        }
    }
}

/// The kind of a message; apps may add names of their own to it (`train.warm_up`).
fn kind_of(message_type: &str) -> &'static str {
    let kind = message_type.split('.').next();
    KINDS
        .into_iter()
        .find(|known| kind == Some(known))
        .unwrap_or("other")
}

/// Flower's kinds of messages (Flower 1.22, `common/message.py`).
const KINDS: [&str; 3] = ["train", "evaluate", "query"];
/// Most rounds of one run that are open at once.
const ROUNDS_MAX: usize = 64;

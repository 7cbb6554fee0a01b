//! What lies on the desk: instructions on their way to becoming replies, and the apps at work on
//! them.
//!
//! An instruction is queued once all of it is here, claimed by a launcher, worked on by an app, and
//! over when the app has handed in its outputs or is gone. It leaves the desk when its reply is
//! delivered or nobody wants one any more. A token is worth nothing once its instruction is over.
//!
//! Pure: no clock, no I/O. [`Desk::watch`] tells when to look again.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use flwr_api::appio::AppStanding;
use flwr_api::{AppError, Delivery, MessageId, ObjectId, RunId, Token};
use flwr_state::Pin;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often an app may be launched for one instruction: a launch whose app never asks for its
/// inputs is not the instruction's fault at first.
const LAUNCHES_MAX: u32 = 3;

/// How many tokens that were given back are remembered, so that a repeated call is told yes.
const SPENT_MAX: usize = 64;

/// The SuperNode's desk.
#[derive(Debug)]
pub(crate) struct Desk {
    papers: Mutex<Papers>,
    changes: watch::Sender<()>,
}

#[derive(Debug)]
struct Papers {
    /// In the order of their arrival.
    jobs: Vec<Job>,
    /// Instructions that will be put here.
    coming: HashSet<MessageId>,
    spent: VecDeque<(Token, RunId)>,
    apps_max: usize,
}

/// An instruction being worked off.
#[derive(Debug)]
struct Job {
    instruction: Delivery,
    objects: HashSet<ObjectId>,
    stage: Stage,
    launches: u32,
    line: Option<Line>,
    reply: Option<Reply>,
    failure: Option<AppError>,
    /// Held until the app is over.
    slot: Option<OwnedSemaphorePermit>,
    pins: Vec<Pin>,
}

#[derive(Debug)]
enum Stage {
    Queued,
    Claimed { token: Token, until: Instant },
    Working { token: Token, has_message: bool },
    Over,
}

/// The connection that an app's calls come over, while it lasts.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Cancelled when the connection is gone.
    pub(crate) gone: CancellationToken,
    /// When the app last called.
    pub(crate) heard: Instant,
}

#[derive(Debug)]
struct Reply {
    delivery: Delivery,
    objects: HashSet<ObjectId>,
    missing: HashSet<ObjectId>,
}

/// What an instruction has come to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Look {
    /// Nothing yet; a claim runs out at this time.
    Waiting(Option<Instant>),
    /// Its reply, with all objects here; and whether the app is over.
    Answered(Box<Delivery>, bool),
    /// The app will not answer.
    Failed(AppError),
    /// It is not on the desk any more.
    Gone,
}

/// Whether an object can be handed to an app of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readable {
    /// Yes.
    Here,
    /// It is announced and its bytes have not come.
    Announced,
    /// It belongs to nothing that run has on the desk.
    No,
}

impl Desk {
    /// An empty desk at which at most `apps_max` apps work.
    pub(crate) fn new(apps_max: usize) -> Self {
        Self {
            papers: Mutex::new(Papers {
                jobs: Vec::new(),
                coming: HashSet::new(),
                spent: VecDeque::new(),
                apps_max: apps_max.max(1),
            }),
            changes: watch::Sender::new(()),
        }
    }

    /// Notified after every change that follows.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Queues an instruction whose objects are all here and kept by `pin`.
    pub(crate) fn put(&self, instruction: Delivery, pin: Pin, slot: OwnedSemaphorePermit) {
        self.change(|papers| {
            papers.coming.remove(&instruction.message.metadata.id);
            papers.jobs.push(Job {
                objects: instruction.tree.ids().into_iter().collect(),
                instruction,
                stage: Stage::Queued,
                launches: 0,
                line: None,
                reply: None,
                failure: None,
                slot: Some(slot),
                pins: vec![pin],
            });
        });
    }

    /// An instruction will be put here, or be removed without that.
    pub(crate) fn expect(&self, instruction: &MessageId) {
        self.change(|papers| papers.coming.insert(instruction.clone()));
    }

    /// Whether the instruction is on the desk, or on its way there.
    pub(crate) fn has(&self, instruction: &MessageId) -> bool {
        self.read(|papers| papers.coming.contains(instruction) || papers.job(instruction).is_some())
    }

    /// How many instructions are at which stage, by name.
    pub(crate) fn stages(&self) -> [(&'static str, usize); 4] {
        self.read(|papers| {
            let at =
                |is: fn(&Stage) -> bool| papers.jobs.iter().filter(|job| is(&job.stage)).count();
            [
                ("queued", at(|stage| matches!(stage, Stage::Queued))),
                (
                    "launched",
                    at(|stage| matches!(stage, Stage::Claimed { .. })),
                ),
                (
                    "working",
                    at(|stage| matches!(stage, Stage::Working { .. })),
                ),
                ("replying", at(|stage| matches!(stage, Stage::Over))),
            ]
        })
    }

    /// Whether the run has anything on the desk.
    pub(crate) fn has_run(&self, run: RunId) -> bool {
        self.read(|papers| papers.jobs.iter().any(|job| job.run() == run))
    }

    /// Runs with an instruction that waits for an app, oldest first. None while as many apps are at
    /// work as may be, and none with an app at work.
    pub(crate) fn launchable(&self) -> Vec<RunId> {
        self.read(Papers::launchable)
    }

    /// Claims the run's oldest instruction for the app that presents `token` before `until`.
    pub(crate) fn claim(&self, run: RunId, token: Token, until: Instant) -> bool {
        self.change(|papers| {
            if !papers.launchable().contains(&run) {
                return false;
            }
            let queued = |job: &&mut Job| job.run() == run && matches!(job.stage, Stage::Queued);
            let Some(job) = papers.jobs.iter_mut().find(queued) else {
                return false;
            };
            job.stage = Stage::Claimed { token, until };
            job.launches += 1;
            true
        })
    }

    /// An app asks for its inputs: the run it is for.
    pub(crate) fn begin(&self, token: &Token) -> Option<RunId> {
        self.change(|papers| {
            let job = papers.by_token(token)?;
            if let Stage::Claimed { token, .. } = &job.stage {
                job.stage = Stage::Working {
                    token: token.clone(),
                    has_message: false,
                };
            }
            Some(job.run())
        })
    }

    /// An app has called over this connection.
    pub(crate) fn heard(&self, token: &Token, line: Line) {
        self.change(|papers| {
            if let Some(job) = papers.by_token(token) {
                job.line = Some(line);
            }
        });
    }

    /// The connection that the instruction's app called over last, while it is at work.
    pub(crate) fn line(&self, instruction: &MessageId) -> Option<Line> {
        self.read(|papers| {
            let job = papers.job(instruction)?;
            job.token().and_then(|_| job.line.clone())
        })
    }

    /// The instruction's app is gone without a word. What it left undone has failed.
    pub(crate) fn lost(&self, instruction: &MessageId, why: &str) {
        let token = self.read(|papers| papers.job(instruction)?.token().cloned());
        if let Some(token) = token {
            self.exited(&token, why);
        }
    }

    /// The instruction an app works on. Asking again gives the same.
    pub(crate) fn instruction(&self, token: &Token) -> Option<Delivery> {
        self.change(|papers| {
            let job = papers.by_token(token)?;
            job.stage = Stage::Working {
                token: token.clone(),
                has_message: true,
            };
            Some(job.instruction.clone())
        })
    }

    /// An app's answer, whose objects but `missing` are here. The first one stands.
    ///
    /// # Errors
    /// A broken rule, for the log and the app.
    pub(crate) fn answer(
        &self,
        token: &Token,
        reply: Delivery,
        missing: &[ObjectId],
        pin: Pin,
    ) -> Result<(), &'static str> {
        self.change(|papers| {
            let job = papers.by_token(token).ok_or("the token is not valid")?;
            let (asked, given) = (&job.instruction.message.metadata, &reply.message.metadata);
            if given.reply_to != asked.id || given.run != asked.run {
                return Err("it does not answer the instruction of this token");
            }
            if given.src != asked.dst || given.dst != asked.src {
                return Err("it does not go from the instruction's node to its sender");
            }
            if given.id != MessageId::from(reply.tree.id) {
                return Err("its id is not that of its object");
            }
            if job.reply.is_none() {
                job.reply = Some(Reply {
                    objects: reply.tree.ids().into_iter().collect(),
                    missing: missing.iter().copied().collect(),
                    delivery: reply,
                });
                job.pins.push(pin);
            }
            Ok(())
        })
    }

    /// Whether an app of the run has announced this object.
    pub(crate) fn expects(&self, run: RunId, object: &ObjectId) -> bool {
        self.read(|papers| {
            let replies = papers.jobs.iter().filter(|job| job.run() == run);
            replies
                .filter_map(|job| job.reply.as_ref())
                .any(|reply| reply.objects.contains(object))
        })
    }

    /// An object has come.
    pub(crate) fn stored(&self, object: &ObjectId) {
        self.change(|papers| {
            for reply in papers.jobs.iter_mut().filter_map(|job| job.reply.as_mut()) {
                reply.missing.remove(object);
            }
        });
    }

    /// Whether apps of the run may have this object.
    pub(crate) fn readable(&self, run: RunId, object: &ObjectId) -> Readable {
        self.read(|papers| {
            for job in papers.jobs.iter().filter(|job| job.run() == run) {
                let reply = job.reply.as_ref();
                if reply.is_some_and(|reply| reply.missing.contains(object)) {
                    return Readable::Announced;
                }
                if job.objects.contains(object)
                    || reply.is_some_and(|reply| reply.objects.contains(object))
                {
                    return Readable::Here;
                }
            }
            Readable::No
        })
    }

    /// The run of an app that hands in its outputs, now or by an earlier call.
    pub(crate) fn run_of(&self, token: &Token) -> Option<RunId> {
        self.read(|papers| {
            let live = papers.jobs.iter().find(|job| job.token() == Some(token));
            let spent = || papers.spent.iter().find(|(spent, _)| spent == token);
            live.map(Job::run).or_else(|| spent().map(|(_, run)| *run))
        })
    }

    /// What there is to say of the app with this token.
    pub(crate) fn standing(&self, token: &Token) -> AppStanding {
        self.read(|papers| {
            if papers.jobs.iter().any(|job| job.token() == Some(token)) {
                AppStanding::Wanted
            } else if papers.spent.iter().any(|(spent, _)| spent == token) {
                AppStanding::Done
            } else {
                AppStanding::Unwanted
            }
        })
    }

    /// The app has handed in its outputs and is over. Repeating it changes nothing.
    pub(crate) fn finish(&self, token: &Token) {
        self.end(token, |job| match &job.reply {
            Some(reply) if reply.missing.is_empty() => None,
            Some(_) => Some("the ClientApp's reply did not arrive whole".to_owned()),
            None => Some("the ClientApp has ended without a reply".to_owned()),
        });
    }

    /// The app's process has ended. What it left undone has failed.
    pub(crate) fn exited(&self, token: &Token, how: &str) {
        self.end(token, |job| match &job.reply {
            Some(reply) if reply.missing.is_empty() => None,
            _ => Some(format!(
                "the ClientApp's process ended before it had answered: {how}"
            )),
        });
    }

    /// Looks at an instruction; takes a claim back that has run out.
    pub(crate) fn look(&self, instruction: &MessageId, now: Instant) -> Look {
        let expired = self.read(|papers| {
            papers.job(instruction).is_some_and(
                |job| matches!(&job.stage, Stage::Claimed { until, .. } if *until <= now),
            )
        });
        if expired {
            self.change(|papers| papers.take_back(instruction));
        }
        self.read(|papers| {
            let Some(job) = papers.job(instruction) else {
                return Look::Gone;
            };
            match (&job.failure, &job.reply, &job.stage) {
                (Some(failure), ..) => Look::Failed(failure.clone()),
                (None, Some(reply), stage) if reply.missing.is_empty() => {
                    let is_over = matches!(stage, Stage::Over);
                    Look::Answered(Box::new(reply.delivery.clone()), is_over)
                }
                (None, _, Stage::Claimed { until, .. }) => Look::Waiting(Some(*until)),
                (None, ..) => Look::Waiting(None),
            }
        })
    }

    /// Takes an instruction off the desk, and its app's token with it.
    pub(crate) fn remove(&self, instruction: &MessageId) {
        self.change(|papers| {
            papers.coming.remove(instruction);
            papers.jobs.retain(|job| job.id() != instruction);
        });
    }

    fn end(&self, token: &Token, verdict: impl FnOnce(&Job) -> Option<String>) {
        self.change(|papers| {
            let Some(job) = papers.by_token(token) else {
                return;
            };
            if let Some(reason) = verdict(job) {
                job.fail(reason);
            }
            job.stage = Stage::Over;
            job.slot = None;
            let run = job.run();
            papers.spent.push_back((token.clone(), run));
            if papers.spent.len() > SPENT_MAX {
                papers.spent.pop_front();
            }
        });
    }

    fn read<T>(&self, look: impl FnOnce(&Papers) -> T) -> T {
        look(&self.papers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, work: impl FnOnce(&mut Papers) -> T) -> T {
        let done = work(&mut self.papers.lock().unwrap_or_else(PoisonError::into_inner));
        self.changes.send_replace(());
        done
    }
}

impl Papers {
    fn job(&self, instruction: &MessageId) -> Option<&Job> {
        self.jobs.iter().find(|job| job.id() == instruction)
    }

    fn by_token(&mut self, token: &Token) -> Option<&mut Job> {
        self.jobs.iter_mut().find(|job| job.token() == Some(token))
    }

    fn launchable(&self) -> Vec<RunId> {
        let at_work: Vec<RunId> = self
            .jobs
            .iter()
            .filter(|job| job.token().is_some())
            .map(Job::run)
            .collect();
        if at_work.len() >= self.apps_max {
            return Vec::new();
        }
        let mut runs = Vec::new();
        for job in &self.jobs {
            let run = job.run();
            let is_waiting = matches!(job.stage, Stage::Queued) && job.failure.is_none();
            if is_waiting && !at_work.contains(&run) && !runs.contains(&run) {
                runs.push(run);
            }
        }
        runs
    }

    /// A launch whose app never came.
    fn take_back(&mut self, instruction: &MessageId) {
        let Some(job) = self.jobs.iter_mut().find(|job| job.id() == instruction) else {
            return;
        };
        job.stage = Stage::Queued;
        if job.launches >= LAUNCHES_MAX {
            job.fail(format!(
                "the ClientApp was launched {LAUNCHES_MAX} times and never asked for its inputs"
            ));
            job.stage = Stage::Over;
            job.slot = None;
        }
    }
}

impl Job {
    fn id(&self) -> &MessageId {
        &self.instruction.message.metadata.id
    }

    fn run(&self) -> RunId {
        self.instruction.message.metadata.run
    }

    fn token(&self) -> Option<&Token> {
        match &self.stage {
            Stage::Claimed { token, .. } | Stage::Working { token, .. } => Some(token),
            Stage::Queued | Stage::Over => None,
        }
    }

    /// An app that has its message can only have failed in the app's own code.
    fn fail(&mut self, reason: String) {
        let code = match (&self.reply, &self.stage) {
            (Some(_), _) => AppError::REPLY_MESSAGE_UNAVAILABLE,
            (
                None,
                Stage::Working {
                    has_message: true, ..
                },
            ) => AppError::APP_RAISED,
            (None, _) => AppError::APP_NOT_LOADED,
        };
        self.reply = None;
        self.failure = Some(AppError {
            code,
            reason: Some(reason),
        });
    }
}

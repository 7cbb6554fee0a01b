//! Certificates, keys and CAs that change while a daemon runs.
//!
//! Every few seconds, and at once upon SIGHUP, the files that flags have named are read. What changed and is whole takes the
//! place of what was there, for connections that begin from then on; those that are open go on. What is not whole is left
//! alone: the old ones stay in force, and one line says why. Files are compared by their contents (see
//! [`Fingerprint`]), so it does not matter how they were replaced.

mod watched;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use flwr_certs::{CertInfo, show};
use flwr_state::{Clock as _, SystemClock};
use flwr_transport::Drain;
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tracing::error;

use crate::exit::{Exit, sentence};
use watched::Watched;

/// Files that belong together, and what to do when they change.
pub(crate) struct Material {
    /// What they are for, as the log calls it.
    pub(crate) purpose: &'static str,
    /// All files that are read.
    pub(crate) files: Vec<PathBuf>,
    /// The certificates of which it counts when they expire.
    pub(crate) certificates: Vec<(Holds, PathBuf)>,
    /// Reads the files, at this time in Unix seconds.
    pub(crate) read: Read,
}

/// Reads files and makes of them what is used, or says what is wrong.
pub(crate) type Read = Box<dyn Fn(f64) -> Result<Ready, String> + Send + Sync>;

/// What was made of files and is not yet in force.
pub(crate) struct Ready {
    /// Works, but not for everybody.
    pub(crate) warnings: Vec<String>,
    /// Puts it in force.
    pub(crate) take_up: Box<dyn FnOnce() + Send>,
}

/// What the certificates of a file are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Holds {
    /// One that is shown to peers, and maybe those that signed it.
    Own,
    /// CAs that peers are judged by.
    Cas,
}

impl Holds {
    /// Of several CAs any will do; of a certificate and its chain, the first is meant.
    fn pick(self, found: Vec<CertInfo>) -> Option<CertInfo> {
        match self {
            Self::Cas => found
                .into_iter()
                .max_by(|one, other| one.not_after.total_cmp(&other.not_after)),
            Self::Own => found.into_iter().next(),
        }
    }
}

/// A certificate in force.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InForce {
    pub(crate) subject: String,
    /// Unix seconds.
    pub(crate) not_after: f64,
}

/// All that a daemon has to watch.
#[derive(Default)]
pub(crate) struct Renewals(Vec<Material>);

impl fmt::Debug for Renewals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let purposes = self.0.iter().map(|material| material.purpose);
        f.debug_list().entries(purposes).finish()
    }
}

impl Renewals {
    /// Watches these too. They have been read and are in force.
    pub(crate) fn add(&mut self, material: Material) {
        self.0.push(material);
    }

    /// Watches until the drain is asked; looks at once when `asked`.
    pub(crate) async fn watch(self, asked: Arc<Notify>, drain: Drain) {
        let watched: Vec<_> = self.0.into_iter().map(Watched::new).collect();
        let watched = Arc::new(Mutex::new(watched));
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_asked = tokio::select! {
                biased;
                () = drain.requested() => return,
                () = asked.notified() => true,
                _ = ticks.tick() => false,
            };
            let watched = Arc::clone(&watched);
            let looked = spawn_blocking(move || {
                let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
                let now = SystemClock.now().seconds();
                watched.iter_mut().for_each(|one| one.look(now, is_asked));
            });
            if let Err(error) = looked.await {
                error!(%error, "The certificates were not looked at");
            }
        }
    }
}

/// What the certificate files of a material say now.
fn in_force(certificates: &[(Holds, PathBuf)], now_unix: f64) -> Result<Vec<InForce>, Exit> {
    let mut found = Vec::new();
    for (holds, path) in certificates {
        let infos = show(path, now_unix).map_err(|error| Exit::Problem(sentence(&error)))?;
        found.extend(holds.pick(infos).map(|info| InForce {
            subject: info.subject,
            not_after: info.not_after,
        }));
    }
    Ok(found)
}

/// How soon a change is noticed.
const PERIOD: Duration = Duration::from_secs(5);

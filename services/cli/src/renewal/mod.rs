//! Certificates, keys and CAs that change while a daemon runs.
//!
//! Every few seconds, and at once upon SIGHUP, the files that flags have named are read. What changed and is whole takes the
//! place of what was there, for connections that begin from then on; those that are open go on. What is not whole is left
//! alone: the old ones stay in force, and one line says why. Files are compared by their contents (see
//! [`Fingerprint`]), so it does not matter how they were replaced. Metrics tell of what is in force, and whether the files are
//! refused.

mod watched;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use flwr_certs::{CertInfo, Fingerprint, show};
use flwr_state::{Clock as _, SystemClock};
use flwr_transport::Drain;
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tracing::error;

use crate::exit::sentence;
use watched::Watched;

/// Files that belong together, and what to do when they change.
pub(crate) struct Material {
    /// What they are for, as the log calls it.
    pub(crate) purpose: &'static str,
    /// All files that are read, as they were before.
    pub(crate) seen: Seen,
    /// The certificates of which it counts when they expire.
    pub(crate) certificates: Vec<Certificate>,
    /// Reads the files, at this time in Unix seconds.
    pub(crate) read: Read,
}

/// Files, and what was in them at one moment.
pub(crate) struct Seen {
    files: Vec<PathBuf>,
    contents: Fingerprint,
}

impl Seen {
    /// As they are now. What is read after that is not older.
    pub(crate) fn now(files: Vec<PathBuf>) -> Self {
        let contents = Fingerprint::of(files.iter().map(PathBuf::as_path));
        Self { files, contents }
    }

    fn again(&self) -> Fingerprint {
        Fingerprint::of(self.files.iter().map(PathBuf::as_path))
    }
}

/// A file with certificates.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    /// What they are for, as metrics call it.
    pub(crate) role: &'static str,
    pub(crate) holds: Holds,
    pub(crate) path: PathBuf,
}

impl Certificate {
    /// One that is shown to peers.
    pub(crate) fn own(role: &'static str, path: &Path) -> Self {
        let (holds, path) = (Holds::Own, path.to_owned());
        Self { role, holds, path }
    }

    /// Those of CAs.
    pub(crate) fn cas(role: &'static str, path: &Path) -> Self {
        let (holds, path) = (Holds::Cas, path.to_owned());
        Self { role, holds, path }
    }
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
    /// The one that it ends with: the first of a chain; of several CAs the last, as others may have taken the place of one
    /// that expires.
    fn pick(self, found: Vec<CertInfo>) -> Option<CertInfo> {
        let by_end = |one: &CertInfo, other: &CertInfo| one.not_after.total_cmp(&other.not_after);
        match self {
            Self::Cas => found.into_iter().max_by(by_end),
            Self::Own => found.into_iter().min_by(by_end),
        }
    }
}

/// A certificate in force.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InForce {
    pub(crate) role: &'static str,
    pub(crate) subject: String,
    /// Unix seconds.
    pub(crate) not_after: f64,
}

/// All that a daemon has to watch.
#[derive(Default)]
pub(crate) struct Renewals(Vec<Watched>);

impl fmt::Debug for Renewals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let purposes = self.0.iter().map(Watched::purpose);
        f.debug_list().entries(purposes).finish()
    }
}

impl Renewals {
    /// Watches these too. They have been read and are in force.
    pub(crate) fn add(&mut self, material: Material) {
        if !material.seen.files.is_empty() {
            let now = SystemClock.now().seconds();
            self.0.push(Watched::new(material, now));
        }
    }

    /// Watches until the drain is asked; looks at once when `asked`.
    pub(crate) async fn watch(self, asked: Arc<Notify>, drain: Drain) {
        let mut watched = self.0;
        if watched.is_empty() {
            return;
        }
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_asked = tokio::select! {
                biased;
                () = drain.requested() => return,
                () = asked.notified() => true,
                _ = ticks.tick() => false,
            };
            let looked = spawn_blocking(move || {
                let now = SystemClock.now().seconds();
                watched.iter_mut().for_each(|one| one.look(now, is_asked));
                watched
            });
            watched = match looked.await {
                Ok(watched) => watched,
                Err(error) => {
                    error!(%error, "The certificates are not looked at any more");
                    return;
                }
            };
        }
    }
}

/// What the certificate files of a material say now.
fn in_force(certificates: &[Certificate], now_unix: f64) -> Result<Vec<InForce>, String> {
    let mut found = Vec::new();
    for Certificate { role, holds, path } in certificates {
        let infos = show(path, now_unix).map_err(|error| sentence(&error))?;
        found.extend(holds.pick(infos).map(|info| InForce {
            role,
            subject: info.subject,
            not_after: info.not_after,
        }));
    }
    Ok(found)
}

/// How soon a change is noticed.
const PERIOD: Duration = Duration::from_secs(5);

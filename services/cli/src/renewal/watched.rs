//! One set of files: whether it has changed, whether that is whole, and whether something in it expires.

use flwr_certs::{Fingerprint, format_iso};
use metrics::gauge;
use tracing::{error, info, warn};

use super::{InForce, Material, in_force};
use crate::metrics::{CERTIFICATE, REFUSED};

/// A set of files, and what is known of it.
pub(super) struct Watched {
    material: Material,
    /// Of what is in force.
    taken_up: Fingerprint,
    /// Of what cannot be taken up, and whether that was said.
    refused: Option<(Fingerprint, bool)>,
    in_force: Vec<InForce>,
    /// When it was last said that something expires, in Unix seconds.
    warned: Option<f64>,
}

/// What a look has found.
#[derive(Debug, PartialEq)]
enum Found {
    Unchanged,
    /// Some of it may be written yet.
    Incomplete,
    /// One sentence, for whoever changed it.
    Refused(String),
    TakenUp {
        warnings: Vec<String>,
    },
}

/// That something expires.
#[derive(Debug, PartialEq)]
enum Expiry {
    Over(String),
    Soon(String),
}

impl Watched {
    /// What was in the files is in force.
    pub(super) fn new(material: Material, now_unix: f64) -> Self {
        Self {
            taken_up: material.seen.contents,
            refused: None,
            // What cannot be read any more is noticed at the first look.
            in_force: in_force(&material.certificates, now_unix).unwrap_or_default(),
            warned: None,
            material,
        }
    }

    /// What it is for, as the log calls it.
    pub(super) fn purpose(&self) -> &'static str {
        self.material.purpose
    }

    /// Looks, acts, and says so. Blocks on the disk.
    pub(super) fn look(&mut self, now_unix: f64, is_asked: bool) {
        let purpose = self.purpose();
        match self.compare(now_unix, is_asked) {
            Found::Unchanged if is_asked => info!("The certificates {purpose} are as they were"),
            Found::Unchanged | Found::Incomplete => {}
            Found::Refused(why) => warn!("The certificates {purpose} stay as they were: {why}"),
            Found::TakenUp { warnings } => {
                for one in &self.in_force {
                    info!(
                        "Took up the certificates {purpose}: {}, valid until {}",
                        one.subject,
                        format_iso(one.not_after)
                    );
                }
                for warning in warnings {
                    warn!("{warning}");
                }
            }
        }
        for expiry in self.expiring(now_unix) {
            match expiry {
                Expiry::Over(line) => error!("{line}"),
                Expiry::Soon(line) => warn!("{line}"),
            }
        }
        self.measure();
    }

    /// Tells the metrics what is in force, which need not be what the files have.
    fn measure(&self) {
        for one in &self.in_force {
            gauge!(CERTIFICATE, "role" => one.role).set(one.not_after);
        }
        let is_refused = matches!(self.refused, Some((_, true)));
        for one in &self.material.certificates {
            gauge!(REFUSED, "role" => one.role).set(f64::from(u8::from(is_refused)));
        }
    }

    /// Files are replaced one after the other. So what does not fit is looked at once more before anybody hears of it,
    /// unless somebody has said that they are all there. It is read again each time: what was too early can be in time.
    fn compare(&mut self, now_unix: f64, is_asked: bool) -> Found {
        let found = self.material.seen.again();
        if found == self.taken_up {
            self.refused = None;
            return Found::Unchanged;
        }
        let read = (self.material.read)(now_unix).and_then(|ready| {
            let certificates = in_force(&self.material.certificates, now_unix);
            Ok((ready, certificates?))
        });
        if self.material.seen.again() != found {
            return Found::Incomplete;
        }
        match read {
            Ok((ready, certificates)) => {
                (ready.take_up)();
                self.taken_up = found;
                self.refused = None;
                self.in_force = certificates;
                self.warned = None;
                Found::TakenUp {
                    warnings: ready.warnings,
                }
            }
            Err(why) => {
                let before = self.refused.filter(|(refused, _)| *refused == found);
                self.refused = Some((found, is_asked || before.is_some()));
                match before {
                    Some((_, true)) if !is_asked => Found::Unchanged,
                    // It may not be all written.
                    None if !is_asked => Found::Incomplete,
                    _ => Found::Refused(why),
                }
            }
        }
    }

    /// What expires, once a day.
    fn expiring(&mut self, now_unix: f64) -> Vec<Expiry> {
        if self.warned.is_some_and(|last| now_unix - last < DAY) {
            return Vec::new();
        }
        self.warned = Some(now_unix);
        let purpose = self.purpose();
        let expiry = |InForce {
                          subject, not_after, ..
                      }: &InForce| {
            let until = format_iso(*not_after);
            match (not_after - now_unix) / DAY {
                left if left <= 0.0 => Some(Expiry::Over(format!(
                    "A certificate {purpose} expired on {until} ({subject}): {RENEW}"
                ))),
                left if left < WARN_DAYS => Some(Expiry::Soon(format!(
                    "A certificate {purpose} expires on {until}, in {} days ({subject}): {RENEW}",
                    left.floor()
                ))),
                _fresh => None,
            }
        };
        self.in_force.iter().filter_map(expiry).collect()
    }
}

const RENEW: &str = "renew it with `flwr-quic certs renew`, or a CA with `certs ca --rollover`; only who has copies of the \
                     files, as units of systemd have, needs a restart";
const DAY: f64 = 86_400.0;
/// Enough to order, make and hand out a new certificate.
const WARN_DAYS: f64 = 30.0;

#[cfg(test)]
#[path = "watched_tests.rs"]
mod tests;

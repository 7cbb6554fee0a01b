//! One set of files: whether it has changed, whether that is whole, and whether something in it expires.

use std::path::PathBuf;

use flwr_certs::{Fingerprint, format_iso};
use tracing::{error, info, warn};

use super::{InForce, Material, in_force};

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

impl Watched {
    /// What is in the files is in force.
    pub(super) fn new(material: Material) -> Self {
        Self {
            taken_up: fingerprint(&material.files),
            refused: None,
            // What cannot be read any more is noticed at the next look.
            in_force: Vec::new(),
            warned: None,
            material,
        }
    }

    /// Looks, acts, and says so. Blocks on the disk.
    pub(super) fn look(&mut self, now_unix: f64, is_asked: bool) {
        let purpose = self.material.purpose;
        if self.in_force.is_empty() {
            self.in_force = in_force(&self.material.certificates, now_unix).unwrap_or_default();
        }
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
        self.warn_of_expiry(now_unix);
    }

    /// Files are replaced one after the other. So what does not fit is looked at once more before anybody hears of it,
    /// unless somebody has said that they are all there.
    fn compare(&mut self, now_unix: f64, is_asked: bool) -> Found {
        let found = fingerprint(&self.material.files);
        if found == self.taken_up {
            self.refused = None;
            return Found::Unchanged;
        }
        if self.refused == Some((found, true)) && !is_asked {
            return Found::Unchanged;
        }
        let read = (self.material.read)(now_unix).and_then(|ready| {
            let certificates = in_force(&self.material.certificates, now_unix);
            Ok((ready, certificates.map_err(|error| error.to_string())?))
        });
        if fingerprint(&self.material.files) != found {
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
            Err(why) if is_asked || self.refused == Some((found, false)) => {
                self.refused = Some((found, true));
                Found::Refused(why)
            }
            Err(_maybe_yet_written) => {
                self.refused = Some((found, false));
                Found::Incomplete
            }
        }
    }

    fn warn_of_expiry(&mut self, now_unix: f64) {
        if self.warned.is_some_and(|last| now_unix - last < DAY) {
            return;
        }
        self.warned = Some(now_unix);
        let purpose = self.material.purpose;
        for one in &self.in_force {
            let until = format_iso(one.not_after);
            match (one.not_after - now_unix) / DAY {
                left if left <= 0.0 => error!(
                    "A certificate {purpose} expired on {until} ({}): {RENEW}",
                    one.subject
                ),
                left if left < WARN_DAYS => warn!(
                    "A certificate {purpose} expires on {until}, in {} days ({}): {RENEW}",
                    left.floor(),
                    one.subject
                ),
                _fresh => {}
            }
        }
    }
}

fn fingerprint(files: &[PathBuf]) -> Fingerprint {
    Fingerprint::of(files.iter().map(PathBuf::as_path))
}

const RENEW: &str = "renew it with `flwr-quic certs renew`, or a CA with `certs ca --rollover`; no restart is needed";
const DAY: f64 = 86_400.0;
/// Enough to order, make and hand out a new certificate.
const WARN_DAYS: f64 = 30.0;

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::Path,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use flwr_certs::{
        CaOptions, LeafOptions, RenewOptions, ServerTls, WriteOptions, create_ca, create_server,
        renew,
    };

    use super::*;
    use crate::renewal::{Holds, Ready};

    /// 2025-09-15
    const NOW: f64 = 1_757_925_000.0;

    struct Site {
        dir: tempfile::TempDir,
        watched: Watched,
        taken_up: Arc<AtomicUsize>,
    }

    impl Site {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let write = WriteOptions::default();
            create_ca(dir.path(), &CaOptions::default(), &write, NOW).unwrap();
            create_server(dir.path(), &LeafOptions::default(), &write, NOW).unwrap();
            let [ca, certificate, key] =
                ["ca.crt", "server.pem", "server.key"].map(|name| dir.path().join(name));
            let taken_up = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&taken_up);
            let material = Material {
                purpose: "of a test",
                files: vec![ca.clone(), certificate.clone(), key.clone()],
                certificates: vec![(Holds::Own, certificate.clone())],
                read: Box::new(move |now| {
                    let tls = ServerTls::load(&ca, &certificate, &key, now);
                    let tls = tls.map_err(|error| error.to_string())?;
                    let counted = Arc::clone(&counted);
                    Ok(Ready {
                        warnings: tls.warnings,
                        take_up: Box::new(move || {
                            counted.fetch_add(1, Ordering::Relaxed);
                        }),
                    })
                }),
            };
            let mut watched = Watched::new(material);
            watched.look(NOW, false);
            Self {
                dir,
                watched,
                taken_up,
            }
        }

        fn renew(&self, new_keys: bool) {
            let options = RenewOptions {
                all: true,
                new_keys,
                ..RenewOptions::default()
            };
            renew(self.dir.path(), &options, NOW + 86_400.0).unwrap();
        }

        fn file(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn look(&mut self, is_asked: bool) -> Found {
            self.watched.compare(NOW + 86_400.0, is_asked)
        }

        fn taken_up(&self) -> usize {
            self.taken_up.load(Ordering::Relaxed)
        }
    }

    fn refused(found: &Found, part: &str) {
        assert!(
            matches!(found, Found::Refused(why) if why.contains(part)),
            "{found:?}"
        );
    }

    #[test]
    fn what_has_changed_and_is_whole_is_taken_up_once() {
        let mut site = Site::new();
        let before = site.watched.in_force[0].clone();
        assert_eq!(site.look(false), Found::Unchanged);
        site.renew(true);
        assert!(matches!(site.look(false), Found::TakenUp { .. }));
        assert_eq!(site.look(false), Found::Unchanged);
        assert_eq!(site.taken_up(), 1);
        assert!(site.watched.in_force[0].not_after > before.not_after);
    }

    #[test]
    fn a_pair_of_which_half_is_written_is_waited_for() {
        let mut site = Site::new();
        let key = site.file("server.key");
        let old_key = fs::read(&key).unwrap();
        site.renew(true);
        let new_key = fs::read(&key).unwrap();
        fs::write(&key, &old_key).unwrap();
        assert_eq!(site.look(false), Found::Incomplete);
        fs::write(&key, new_key).unwrap();
        assert!(matches!(site.look(false), Found::TakenUp { .. }));
        assert_eq!(site.taken_up(), 1);
    }

    /// Breaks the files in a directory.
    type Break = fn(&Path);

    #[test]
    fn what_cannot_be_used_is_said_once_and_changes_nothing() {
        let cases: [(&str, Break); 4] = [
            ("does not fit the certificate", |dir| {
                fs::copy(dir.join("ca/ca.key"), dir.join("server.key")).unwrap();
            }),
            ("does not exist", |dir| {
                fs::remove_file(dir.join("server.pem")).unwrap()
            }),
            ("is damaged", |dir| {
                let whole = fs::read(dir.join("server.pem")).unwrap();
                fs::write(dir.join("server.pem"), &whole[..whole.len() / 4]).unwrap();
            }),
            ("expired on", |dir| {
                let write = WriteOptions {
                    overwrite: true,
                    ..WriteOptions::default()
                };
                let short = LeafOptions {
                    days: 0,
                    ..LeafOptions::default()
                };
                create_server(dir, &short, &write, NOW).unwrap();
            }),
        ];
        for (part, break_it) in cases {
            let mut site = Site::new();
            let before = site.watched.in_force.clone();
            break_it(site.dir.path());
            assert_eq!(site.look(false), Found::Incomplete, "{part}");
            refused(&site.look(false), part);
            assert_eq!(site.look(false), Found::Unchanged, "{part}: said already");
            refused(&site.look(true), part);
            assert_eq!((site.taken_up(), &site.watched.in_force), (0, &before));
        }
    }

    #[test]
    fn who_says_that_all_is_there_is_told_at_once() {
        let mut site = Site::new();
        fs::write(site.file("server.key"), "nonsense").unwrap();
        refused(&site.look(true), "holds no private key");
    }

    #[test]
    fn what_is_back_as_it_was_needs_nothing() {
        let mut site = Site::new();
        let pem = fs::read(site.file("server.pem")).unwrap();
        fs::remove_file(site.file("server.pem")).unwrap();
        assert_eq!(site.look(false), Found::Incomplete);
        fs::write(site.file("server.pem"), pem).unwrap();
        assert_eq!(site.look(false), Found::Unchanged);
        assert_eq!(site.taken_up(), 0);
    }

    #[test]
    fn expiry_is_warned_of_once_a_day() {
        let mut site = Site::new();
        let late = NOW + 800.0 * DAY;
        site.watched.look(late, false);
        assert_eq!(site.watched.warned, Some(late));
        site.watched.look(late + DAY - 1.0, false);
        assert_eq!(site.watched.warned, Some(late));
        site.watched.look(late + DAY, false);
        assert_eq!(site.watched.warned, Some(late + DAY));
    }
}

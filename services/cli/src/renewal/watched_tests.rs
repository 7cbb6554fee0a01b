//! What becomes of files that change.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use flwr_certs::{
    CaOptions, LeafOptions, RenewOptions, ServerTls, WriteOptions, create_ca, create_server, renew,
};

use metrics_exporter_prometheus::PrometheusBuilder;

use super::*;
use crate::renewal::{Certificate, Ready, Seen};

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
            seen: Seen::now(vec![ca.clone(), certificate.clone(), key.clone()]),
            certificates: vec![Certificate::own("test", &certificate)],
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
        let mut watched = Watched::new(material, NOW);
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

    /// What metrics say of the certificate.
    fn measured(&self, name: &str) -> f64 {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || self.watched.measure());
        let page = recorder.handle().render();
        let line = page.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().last().unwrap().parse().unwrap()
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
        assert_eq!(site.measured(REFUSED), 1.0, "{part}");
        assert_eq!(site.measured(CERTIFICATE), before[0].not_after);
    }
}

#[test]
fn what_is_too_early_is_taken_up_when_its_time_has_come() {
    let mut site = Site::new();
    let write = WriteOptions {
        overwrite: true,
        ..WriteOptions::default()
    };
    let leaf = LeafOptions::default();
    create_server(site.dir.path(), &leaf, &write, NOW + 3.0 * DAY).unwrap();
    assert_eq!(site.look(false), Found::Incomplete);
    refused(&site.look(false), "is not valid before");
    assert_eq!(site.look(false), Found::Unchanged);
    let found = site.watched.compare(NOW + 4.0 * DAY, false);
    assert!(matches!(found, Found::TakenUp { .. }), "{found:?}");
    assert_eq!(site.measured(REFUSED), 0.0);
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
    let mut said = |days: f64| site.watched.expiring(NOW + days * DAY);
    // It is valid for 825 days.
    assert_eq!(said(794.9), []);
    let [Expiry::Soon(line)] = &said(796.0)[..] else {
        panic!("it expires soon");
    };
    assert!(
        line.contains("in 29 days") && line.contains("certs renew"),
        "{line}"
    );
    assert_eq!(said(796.9), []);
    assert!(matches!(said(797.0)[..], [Expiry::Soon(_)]));
    assert!(matches!(said(826.0)[..], [Expiry::Over(_)]));
    let mut fresh = Site::new();
    assert_eq!(fresh.watched.expiring(NOW + 2.0 * DAY), []);
}

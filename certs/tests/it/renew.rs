//! Certificates made anew, and the change from one CA to the next.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use flwr_certs::{
    CaOptions, CertInfo, Layout, LeafOptions, NodeKeyPair, RenewOptions, Renewal, WriteOptions,
    create_ca, create_client_for, create_clients, create_server, load_ca, renew, retire_former,
    roll_over, show, verify,
};

use crate::{NOW, openssl};

const DAY: f64 = 86_400.0;
/// Thirty days before what was made at `NOW` expires, and then some.
const LATER: f64 = NOW + 800.0 * DAY;

fn federation(dir: &Path, layout: Layout) {
    let write = WriteOptions {
        layout,
        ..WriteOptions::default()
    };
    let leaf = LeafOptions {
        names: vec!["fl.example.org".into(), "10.1.2.3".into()],
        ..LeafOptions::default()
    };
    create_ca(dir, &CaOptions::default(), &write, NOW).unwrap();
    create_server(dir, &leaf, &write, NOW).unwrap();
    create_clients(dir, 1..=2, &LeafOptions::default(), &write, NOW).unwrap();
}

fn of(dir: &Path, certificate: &str, now: f64) -> CertInfo {
    show(&dir.join(certificate), now).unwrap().swap_remove(0)
}

fn assert_good(dir: &Path, certificate: &str, key: &str, now: f64) {
    let (ca, certificate, key) = (dir.join("ca.crt"), dir.join(certificate), dir.join(key));
    let problems = verify(&ca, &certificate, Some(&key), None, now).unwrap();
    assert!(
        problems.is_empty(),
        "{}: {problems:?}",
        certificate.display()
    );
}

fn renewed(renewals: &[Renewal]) -> Vec<String> {
    let done = renewals.iter().filter(|one| one.renewed.is_some());
    done.flat_map(|one| &one.certificates)
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn what_is_due_is_made_anew_with_the_same_names_usages_and_key() {
    for (layout, server, client) in [
        (Layout::Both, "server/server.crt", "clients/client1.crt"),
        (Layout::Nested, "server/server.crt", "clients/client1.crt"),
        (Layout::Flat, "server.pem", "client1.pem"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        federation(dir, layout);
        if layout == Layout::Nested {
            fs::copy(dir.join("ca/ca.crt"), dir.join("ca.crt")).unwrap();
        }
        let key = Path::new(server).with_extension("key");
        let key = key.to_str().unwrap();
        fs::set_permissions(dir.join(key), fs::Permissions::from_mode(0o640)).unwrap();
        let before = [of(dir, server, LATER), of(dir, client, LATER)];
        let key_before = fs::read(dir.join(key)).unwrap();

        assert!(renewed(&renew(dir, &RenewOptions::default(), NOW).unwrap()).is_empty());
        let renewals = renew(dir, &RenewOptions::default(), LATER).unwrap();
        assert_eq!(renewals.len(), 3, "{renewals:?}");
        assert!(renewals.iter().all(|one| one.renewed.is_some()));

        let after = [of(dir, server, LATER), of(dir, client, LATER)];
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(before.alt_names, after.alt_names);
            assert_eq!(before.subject, after.subject);
            assert_ne!(before.serial, after.serial);
            assert_eq!(
                before.not_after - before.not_before,
                after.not_after - after.not_before
            );
            assert_eq!(after.days_left, 824, "{layout:?}");
        }
        assert_eq!(fs::read(dir.join(key)).unwrap(), key_before);
        assert_good(dir, server, key, LATER);
        let client_key = Path::new(client).with_extension("key");
        assert_good(dir, client, client_key.to_str().unwrap(), LATER);
        if let Some(text) = openssl(dir, &["x509", "-in", client, "-noout", "-text"]) {
            let usages = "TLS Web Client Authentication, TLS Web Server Authentication";
            for part in [
                usages,
                "DNS:supernode-1",
                "DNS:flower-supernode-1",
                "DNS:localhost",
            ] {
                assert!(text.contains(part), "{part}: {text}");
            }
            assert!(
                text.contains("CA:FALSE") && text.contains("Digital Signature"),
                "{text}"
            );
            openssl(
                dir,
                &["verify", "-no_check_time", "-CAfile", "ca.crt", client],
            );
        }
        if layout != Layout::Nested {
            // The chain goes on to the CA.
            let chain = show(&dir.join("server.pem"), LATER).unwrap();
            assert_eq!(chain.len(), 2);
        }
    }
}

#[test]
fn both_files_of_one_certificate_stay_one() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    federation(dir, Layout::Both);
    let options = RenewOptions {
        all: true,
        new_keys: true,
        ..RenewOptions::default()
    };
    let before = fs::read(dir.join("server.key")).unwrap();
    fs::set_permissions(dir.join("server.key"), fs::Permissions::from_mode(0o400)).unwrap();
    renew(dir, &options, NOW).unwrap();
    let [nested, flat] = ["server/server.crt", "server.pem"].map(|name| of(dir, name, NOW));
    assert_eq!(nested, flat);
    let after = fs::read(dir.join("server.key")).unwrap();
    assert_ne!(before, after);
    assert_eq!(after, fs::read(dir.join("server/server.key")).unwrap());
    assert_good(dir, "server.pem", "server.key", NOW);
    assert_good(dir, "clients/client2.crt", "clients/client2.key", NOW);
    let mode = |name: &str| dir.join(name).metadata().unwrap().mode() & 0o777;
    assert_eq!(
        (mode("server.key"), mode("server/server.key")),
        (0o400, 0o600)
    );
}

#[test]
fn files_are_replaced_or_written_into_as_asked() {
    for in_place in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        federation(dir, Layout::Both);
        let inode = || dir.join("server.pem").metadata().unwrap().ino();
        let before = (inode(), of(dir, "server.pem", NOW).serial);
        let options = RenewOptions {
            all: true,
            in_place,
            ..RenewOptions::default()
        };
        renew(dir, &options, NOW).unwrap();
        assert_eq!(inode() == before.0, in_place);
        assert_ne!(of(dir, "server.pem", NOW).serial, before.1);
        assert_good(dir, "server.pem", "server.key", NOW);
        let left_over = fs::read_dir(dir).unwrap();
        let names = left_over.map(|entry| entry.unwrap().file_name());
        assert!(
            names
                .into_iter()
                .all(|name| !name.to_string_lossy().ends_with(".tmp"))
        );
    }
}

#[test]
fn the_key_of_a_node_stays_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    federation(dir, Layout::Both);
    let node = NodeKeyPair::generate().unwrap();
    let (leaf, write) = (LeafOptions::default(), WriteOptions::default());
    create_client_for(dir, 7, node.public(), &leaf, &write, NOW).unwrap();
    let options = RenewOptions {
        all: true,
        new_keys: true,
        ..RenewOptions::default()
    };
    let renewals = renew(dir, &options, LATER).unwrap();
    let of_node = renewals.last().unwrap();
    assert!(
        of_node.renewed.as_ref().unwrap().keys.is_empty(),
        "{of_node:?}"
    );
    let path = dir.join("clients/client7.crt");
    flwr_certs::ClientCertificate::load(&path, None, Some(&node), LATER).unwrap();
}

#[test]
fn a_key_of_another_certificate_ends_it_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    federation(dir, Layout::Both);
    fs::copy(
        dir.join("clients/client1.key"),
        dir.join("clients/client2.key"),
    )
    .unwrap();
    let before = fs::read(dir.join("server.pem")).unwrap();
    let error = renew(dir, &RenewOptions::default(), LATER).unwrap_err();
    assert!(
        error.to_string().contains("client2.key does not fit"),
        "{error}"
    );
    assert_eq!(fs::read(dir.join("server.pem")).unwrap(), before);
}

#[test]
fn one_ca_follows_another() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    federation(dir, Layout::Both);
    let none = retire_former(dir, false, false).unwrap_err();
    assert!(none.to_string().contains("none to retire"), "{none}");

    let inode = || dir.join("ca.crt").metadata().unwrap().ino();
    let before = inode();
    let mut written = roll_over(dir, &CaOptions::default(), true, NOW).unwrap();
    written.sort();
    let names: Vec<_> = written
        .iter()
        .map(|path| path.strip_prefix(dir).unwrap().to_str().unwrap())
        .collect();
    assert_eq!(names, ["ca/ca.crt", "ca/ca.key", "ca.crt"]);
    assert_eq!(show(&dir.join("ca.crt"), NOW).unwrap().len(), 2);
    assert_eq!(
        dir.join("ca/ca.key").metadata().unwrap().mode() & 0o777,
        0o600
    );
    // What the former CA signed is trusted still, and due.
    assert_good(dir, "server.pem", "server.key", NOW);
    let renewals = renew(dir, &RenewOptions::default(), NOW).unwrap();
    assert_eq!(renewed(&renewals).len(), 4, "{renewals:?}");
    assert!(renewed(&renew(dir, &RenewOptions::default(), NOW).unwrap()).is_empty());

    retire_former(dir, false, true).unwrap();
    assert_eq!(show(&dir.join("ca.crt"), NOW).unwrap().len(), 1);
    assert_eq!(inode(), before);
    assert_good(dir, "server.pem", "server.key", NOW);
    assert_good(dir, "clients/client1.crt", "clients/client1.key", NOW);
}

#[test]
fn a_ca_that_is_needed_is_not_retired() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    federation(dir, Layout::Both);
    roll_over(dir, &CaOptions::default(), false, NOW).unwrap();
    let needed = retire_former(dir, false, false).unwrap_err().to_string();
    for part in [
        "server.pem",
        "clients/client2.crt",
        "certs renew",
        "--force",
    ] {
        assert!(needed.contains(part), "{part}: {needed}");
    }
    renew(dir, &RenewOptions::default(), NOW).unwrap();
    // Whom this CA and those before it have not signed, they need not outlast.
    let elsewhere = tempfile::tempdir().unwrap();
    federation(elsewhere.path(), Layout::Both);
    let foreign = elsewhere.path().join("clients/client2.crt");
    fs::copy(foreign, dir.join("clients/client2.crt")).unwrap();
    retire_former(dir, false, false).unwrap();

    roll_over(dir, &CaOptions::default(), false, NOW).unwrap();
    retire_former(dir, false, false).unwrap_err();
    retire_former(dir, true, false).unwrap();
    assert_eq!(show(&dir.join("ca.crt"), NOW).unwrap().len(), 1);
}

#[test]
fn what_had_to_end_with_its_ca_lasts_longer_with_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let write = WriteOptions::default();
    let short = CaOptions {
        days: 50,
        ..CaOptions::default()
    };
    create_ca(dir, &short, &write, NOW).unwrap();
    create_server(dir, &LeafOptions::default(), &write, NOW).unwrap();
    let deliberate = LeafOptions {
        days: 10,
        ..LeafOptions::default()
    };
    create_clients(dir, 1..=1, &deliberate, &write, NOW).unwrap();

    let later = NOW + 30.0 * DAY;
    let ends_with_ca = |renewals: &[Renewal]| -> Vec<bool> {
        let renewed = renewals.iter().filter_map(|one| one.renewed.as_ref());
        renewed.map(|one| one.ends_with_ca).collect()
    };
    let options = RenewOptions::default();
    let renewals = renew(dir, &options, later).unwrap();
    assert_eq!(ends_with_ca(&renewals), [true, false]);
    assert_eq!(of(dir, "server.pem", later).days_left, 19);
    roll_over(dir, &CaOptions::default(), false, later).unwrap();
    let renewals = renew(dir, &options, later).unwrap();
    assert_eq!(ends_with_ca(&renewals), [false, false]);
    assert_eq!(of(dir, "server.pem", later).days_left, 824);
    assert_eq!(of(dir, "clients/client1.crt", later).days_left, 9);
}

#[test]
fn what_another_ca_has_signed_is_left_alone() {
    let [dir, elsewhere] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (dir, elsewhere) = (dir.path(), elsewhere.path());
    federation(dir, Layout::Both);
    federation(elsewhere, Layout::Both);
    for name in ["server.pem", "server.key"] {
        fs::copy(elsewhere.join(name), dir.join(name)).unwrap();
    }
    let before = fs::read(dir.join("server.pem")).unwrap();
    let mut options = RenewOptions::default();
    let renewals = renew(dir, &options, LATER).unwrap();
    let foreign = renewals.iter().filter(|one| one.is_foreign);
    let foreign: Vec<_> = foreign.flat_map(|one| &one.certificates).collect();
    assert_eq!(foreign, [&dir.join("server.pem")]);
    assert_eq!(renewed(&renewals).len(), 3, "{renewals:?}");
    assert_eq!(fs::read(dir.join("server.pem")).unwrap(), before);
    options.all = true;
    assert_eq!(renewed(&renew(dir, &options, LATER).unwrap()).len(), 4);
    assert_good(dir, "server.pem", "server.key", LATER);
}

#[test]
fn a_change_of_cas_that_is_cut_off_can_be_completed_or_has_not_begun() {
    for in_place in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        federation(dir, Layout::Both);
        // Neither written into nor replaced by a file.
        fs::remove_file(dir.join("ca.crt")).unwrap();
        fs::create_dir_all(dir.join("ca.crt/in-the-way")).unwrap();
        let [key, next] = ["ca/ca.key", "ca/ca.key.next"].map(|name| dir.join(name));
        roll_over(dir, &CaOptions::default(), in_place, NOW).unwrap_err();
        if in_place {
            assert_eq!(show(&dir.join("ca/ca.crt"), NOW).unwrap().len(), 1);
        } else {
            let error = load_ca(dir).unwrap_err().to_string();
            let completes = format!("mv {} {}", next.display(), key.display());
            assert!(error.contains(&completes), "{error}");
            assert_eq!(next.metadata().unwrap().mode() & 0o777, 0o600);
            fs::rename(&next, &key).unwrap();
        }
        load_ca(dir).unwrap();
        assert!(!next.exists());
        fs::remove_dir_all(dir.join("ca.crt")).unwrap();
        roll_over(dir, &CaOptions::default(), in_place, NOW).unwrap();
        assert!(!next.exists());
    }
}

#[test]
fn there_has_to_be_a_ca_and_something_to_renew() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let error = renew(dir, &RenewOptions::default(), NOW).unwrap_err();
    assert!(error.to_string().contains("no CA with its key"), "{error}");
    create_ca(dir, &CaOptions::default(), &WriteOptions::default(), NOW).unwrap();
    let error = renew(dir, &RenewOptions::default(), NOW).unwrap_err();
    assert!(error.to_string().contains("certs server"), "{error}");
    federation_server_after_its_ca(dir);
}

/// A CA that has expired signs nothing.
fn federation_server_after_its_ca(dir: &Path) {
    create_server(dir, &LeafOptions::default(), &WriteOptions::default(), NOW).unwrap();
    let error = renew(dir, &RenewOptions::default(), NOW + 4000.0 * DAY).unwrap_err();
    assert!(error.to_string().contains("the CA expired"), "{error}");
}

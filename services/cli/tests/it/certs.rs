//! `flwr-quic certs`, by what it writes and says.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::support::{World, mode};

const ALL: [&str; 9] = [
    "ca/ca.crt",
    "ca/ca.key",
    "ca.crt",
    "server/server.crt",
    "server/server.key",
    "server.pem",
    "server.key",
    "clients/client1.crt",
    "clients/client1.key",
];

fn federation(world: &World) {
    world.good("certs ca --dir pki --name Test_CA");
    world.good("certs server --dir pki --san fl.example.org --san 10.1.2.3");
    world.good("certs client 1 --dir pki --san node1.example.org");
}

fn contents(world: &World) -> Vec<Vec<u8>> {
    ALL.map(|name| fs::read(world.path("pki").join(name)).expect(name))
        .to_vec()
}

#[test]
fn both_layouts_are_written_with_private_keys_for_the_owner_only() {
    let world = World::new();
    federation(&world);
    for name in ALL {
        let path = world.path("pki").join(name);
        if name.ends_with(".key") {
            assert_eq!(mode(&path), 0o600, "{name}");
        } else {
            assert_eq!(mode(&path) & 0o444, 0o444, "{name}");
        }
    }
    let checked = world.good("certs verify --dir pki --host fl.example.org");
    for name in [
        "ca/ca.crt",
        "server/server.crt",
        "server.pem",
        "clients/client1.crt",
    ] {
        assert!(checked.contains(&format!("pki/{name}: ok")), "{checked}");
    }
}

#[test]
fn files_that_exist_stay_unless_forced() {
    let world = World::new();
    federation(&world);
    let before = contents(&world);
    for line in [
        "certs ca --dir pki",
        "certs server --dir pki",
        "certs client 1 --dir pki",
    ] {
        let ended = world.run(line);
        assert_eq!(ended.status, Some(1), "{line}: {ended:?}");
        assert!(ended.stderr.starts_with("error: pki/"), "{line}: {ended:?}");
        assert!(ended.stderr.contains("--force"), "{line}: {ended:?}");
    }
    assert_eq!(contents(&world), before);
    for line in [
        "certs ca --dir pki",
        "certs server --dir pki",
        "certs client 1 --dir pki",
    ] {
        world.good(&format!("{line} --force"));
    }
    for (name, (old, new)) in ALL.iter().zip(before.iter().zip(contents(&world))) {
        assert_ne!(*old, new, "{name}");
    }
    world.good("certs verify --dir pki");
}

#[test]
fn each_step_says_what_it_wrote_and_what_comes_next() {
    let world = World::new();
    let said = world.good("certs ca");
    assert_eq!(
        said,
        "wrote certificates/ca/ca.crt\n\
         wrote certificates/ca/ca.key (private)\n\
         wrote certificates/ca.crt\n\
         \n\
         Next, make the SuperLink's certificate, with a --san for each further name or address that peers use:\n  \
         flwr-quic certs server\n"
    );
    let said = world.good("certs server --san 10.1.2.3");
    assert!(
        said.contains("wrote certificates/server.key (private)\n"),
        "{said}"
    );
    assert!(
        said.contains(
            "valid for superlink, flower-superlink, localhost, 127.0.0.1, ::1, 10.1.2.3\n"
        ),
        "{said}"
    );
    assert!(
        said.contains(
            "flwr-quic superlink --ssl-ca-certfile certificates/ca.crt --ssl-certfile certificates/server.pem \
             --ssl-keyfile certificates/server.key\n"
        ),
        "{said}"
    );
    let said = world.good("certs client 7");
    assert!(
        said.contains("wrote certificates/clients/client7.key (private)\n"),
        "{said}"
    );
    assert!(said.ends_with("  flwr-quic certs verify\n"), "{said}");
}

#[test]
fn a_server_certificate_needs_a_ca_and_sensible_names() {
    let world = World::new();
    let ended = world.run("certs server --dir pki");
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("pki") && ended.stderr.contains("certs ca"),
        "{ended:?}"
    );
    world.good("certs ca --dir pki");
    let ended = world.run("certs server --dir pki --san not_a:host");
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("not_a:host"), "{ended:?}");
    assert!(!world.path("pki/server.key").exists());
}

#[test]
fn verify_says_what_is_wrong() {
    let world = World::new();
    federation(&world);
    world.good("certs ca --dir other");
    let check = |flags: &str, parts: &[&str]| {
        let ended = world.run(&format!("certs verify {flags}"));
        assert_eq!(ended.status, Some(1), "{flags}: {ended:?}");
        assert!(ended.stdout.is_empty(), "{flags}: {ended:?}");
        for part in parts {
            assert!(
                ended.stderr.contains(part),
                "{flags}: no {part:?} in {}",
                ended.stderr
            );
        }
    };
    let pair = "--ca pki/ca.crt --cert pki/server.pem";
    world.good(&format!(
        "certs verify {pair} --key pki/server.key --host 10.1.2.3"
    ));
    check(
        &format!("{pair} --host example.com"),
        &["not valid for example.com", "fl.example.org"],
    );
    check(
        &format!("{pair} --key pki/clients/client1.key"),
        &["does not fit"],
    );
    check(
        "--ca other/ca.crt --cert pki/server.pem",
        &["not signed by the CA in other/ca.crt"],
    );
    check(
        "--ca pki/ca.crt --cert absent.pem",
        &["absent.pem does not exist"],
    );
    check(
        "--dir nowhere",
        &["no ca.crt in nowhere", "flwr-quic certs ca --dir nowhere"],
    );
    check(
        "--dir pki --host example.com",
        &[
            "server.pem: not valid for example.com",
            "server/server.crt: not valid",
        ],
    );

    let key = world.path("pki/server.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    check("--dir pki", &["everybody", "pki/server.key", "chmod 600"]);
    fs::copy(world.path("other/ca.crt"), world.path("pki/ca.crt")).unwrap();
    check("--dir pki", &["pki/ca.crt: "]);
}

#[test]
fn verify_takes_either_a_directory_or_files() {
    let world = World::new();
    for flags in ["--dir pki --ca a --cert b", "--ca a", "--cert b", "--key c"] {
        assert_eq!(
            world.run(&format!("certs verify {flags}")).status,
            Some(2),
            "{flags}"
        );
    }
}

#[test]
fn show_tells_what_files_hold() {
    let world = World::new();
    federation(&world);
    let said = world.good("certs show pki/server.pem pki/ca.crt");
    for part in [
        "pki/server.pem: certificate\n",
        "pki/ca.crt: certificate authority\n",
        "fl.example.org, 10.1.2.3\n",
        "Test_CA",
        "days left",
        "ECDSA P-256",
        "sha256",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let ended = world.run("certs show pki/server.key");
    assert_eq!(ended.status, Some(1));
    assert!(ended.stderr.contains("holds no certificate"), "{ended:?}");
    assert_eq!(world.run("certs show").status, Some(2));
}

#[test]
fn a_certificate_can_be_for_the_key_of_a_node() {
    let world = World::new();
    federation(&world);
    world.good("keys node --out node");
    let said = world.good("certs client 2 --dir pki --node-key node.pub");
    assert!(
        said.starts_with("wrote pki/clients/client2.crt\n\n"),
        "{said}"
    );
    assert!(!world.path("pki/clients/client2.key").exists());
    let shown = world.good("certs show pki/clients/client2.crt");
    assert!(shown.contains("ECDSA P-384"), "{shown}");
    let checked = world.good("certs verify --dir pki");
    assert!(checked.contains("client2.crt: ok"), "{checked}");
    let ended = world.run("certs client 3 --dir pki --node-key node");
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("node is not the public key of a node"),
        "{ended:?}"
    );
}

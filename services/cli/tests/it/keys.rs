//! `flwr-quic keys`, by what it writes and says.

use std::{
    fs,
    process::{Command, Stdio},
};

use flwr_certs::{AllowList, JoinSecret, NodeKeyPair};

use crate::support::{World, mode};

#[test]
fn a_key_pair_is_written_and_listed() {
    let world = World::new();
    let said = world.good("keys node --out keys/node1 --list list/keys.csv");
    assert!(
        said.starts_with(
            "wrote keys/node1 (private: stays with the SuperNode)\nwrote keys/node1.pub\n"
        ),
        "{said}"
    );
    assert!(
        said.contains("added it to list/keys.csv, which has 1 key now\n"),
        "{said}"
    );
    assert!(
        said.contains(
            "flower-supernode --auth-supernode-private-key keys/node1 --auth-supernode-public-key keys/node1.pub"
        ),
        "{said}"
    );
    let said = world.good("keys node --out keys/node2 --list list/keys.csv");
    assert!(said.contains("which has 2 keys now\n"), "{said}");

    assert_eq!(mode(&world.path("keys/node1")), 0o600);
    let pair = NodeKeyPair::load(&world.path("keys/node1")).unwrap();
    let list = AllowList::load(&world.path("list/keys.csv")).unwrap();
    assert_eq!(list.len(), 2);
    assert!(list.contains(pair.public()));
    let line = fs::read_to_string(world.path("keys/node1.pub")).unwrap();
    assert!(
        line.starts_with("ecdsa-sha2-nistp384 ") && line.ends_with(" node1\n"),
        "{line}"
    );
}

#[test]
fn keys_for_our_own_programs_are_ed25519_if_asked() {
    let world = World::new();
    let said = world.good("keys node --type ed25519 --out node --list keys.csv");
    assert!(
        said.contains("stock Flower cannot use Ed25519 keys")
            && said.contains("flwr-quic supernode --auth-supernode-private-key node"),
        "{said}"
    );
    let line = fs::read_to_string(world.path("node.pub")).unwrap();
    assert!(line.starts_with("ssh-ed25519 "), "{line}");
    let pair = NodeKeyPair::load(&world.path("node")).unwrap();
    let list = AllowList::load(&world.path("keys.csv")).unwrap();
    assert!(list.contains(pair.public()));
    assert_eq!(world.run("keys node --type rsa --out x").status, Some(2));
}

#[test]
fn without_a_list_it_says_how_to_make_one() {
    let world = World::new();
    let said = world.good("keys node --out node");
    assert!(
        said.contains("add the line of node.pub to a list, for example keys.csv"),
        "{said}"
    );
}

#[test]
fn keys_that_exist_stay_unless_forced() {
    let world = World::new();
    world.good("keys node --out node --list keys.csv");
    let read = || {
        ["node", "node.pub", "keys.csv"].map(|name| fs::read_to_string(world.path(name)).unwrap())
    };
    let before = read();
    let ended = world.run("keys node --out node --list keys.csv");
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("node exists already") && ended.stderr.contains("--force"),
        "{ended:?}"
    );
    assert_eq!(read(), before);

    let old = NodeKeyPair::load(&world.path("node")).unwrap();
    let said = world.good("keys node --out node --list keys.csv --force");
    assert_ne!(read()[0], before[0]);
    assert!(
        said.contains("still in keys.csv") && said.contains(&old.public().fingerprint()),
        "{said}"
    );
}

#[test]
fn a_bad_list_is_noticed_before_a_key_is_made() {
    let world = World::new();
    fs::write(world.path("keys.csv"), "junk\n").unwrap();
    let ended = world.run("keys node --out node --list keys.csv");
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("line 1 of keys.csv"), "{ended:?}");
    assert!(!world.path("node").exists());
    assert_eq!(
        fs::read_to_string(world.path("keys.csv")).unwrap(),
        "junk\n"
    );
}

#[test]
fn ssh_keygen_reads_the_key_if_it_is_installed() {
    let world = World::new();
    world.good("keys node --out node");
    let reading = Command::new("ssh-keygen")
        .args(["-y", "-f"])
        .arg(world.path("node"))
        .stdin(Stdio::null())
        .output();
    let Ok(output) = reading else {
        return;
    };
    assert!(output.status.success(), "{output:?}");
    let public = fs::read_to_string(world.path("node.pub")).unwrap();
    let key = |line: &str| {
        line.split(' ')
            .take(2)
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        key(&String::from_utf8(output.stdout).unwrap()),
        key(&public)
    );
}

#[test]
fn a_join_secret_is_written_for_its_owner_only() {
    let world = World::new();
    let said = world.good("keys join-secret --out secrets/join");
    assert!(
        said.contains("--appio-join-secret-file secrets/join"),
        "{said}"
    );
    let path = world.path("secrets/join");
    assert_eq!(mode(&path), 0o600);
    let first = JoinSecret::load(&path).unwrap();
    assert!(!said.contains(first.secret.expose()), "{said}");

    let ended = world.run("keys join-secret --out secrets/join");
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("--force"), "{ended:?}");
    world.good("keys join-secret --out secrets/join --force");
    assert_ne!(JoinSecret::load(&path).unwrap().secret, first.secret);
}

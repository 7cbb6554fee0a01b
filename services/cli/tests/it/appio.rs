//! The AppIo API's flags: what is refused, what is warned of, what is served.

use std::{fs, fs::Permissions, os::unix::fs::PermissionsExt as _};

use rustix::process::Signal;

use crate::{
    superexec::path_with_app,
    support::{Ports, SuperLink, World},
};

const TLS: &str = "--appio-ssl-ca-certfile certificates/ca.crt --appio-ssl-certfile certificates/server.pem \
                   --appio-ssl-keyfile certificates/server.key";
const SECRET: &str = "--appio-join-secret-file join-secret";

/// Certificates and a join secret.
fn world() -> World {
    let world = World::new();
    world.good("certs ca");
    world.good("certs server");
    world.good("keys join-secret --out join-secret");
    world
}

fn refused(world: &World, flags: &str, parts: &[&str]) {
    let ended = world.run(&format!("superlink --insecure {flags}"));
    assert_eq!(ended.status, Some(1), "{flags}: {ended:?}");
    for part in parts {
        assert!(
            ended.reason().contains(part),
            "{flags}: no {part:?} in {ended:?}"
        );
    }
}

/// What it warns of beside `--insecure`, once it serves.
fn warnings(world: &World, flags: &str) -> Vec<String> {
    let mut link = SuperLink::start(
        world,
        &format!("--insecure --isolation process {flags}"),
        &[],
    );
    link.signal(Signal::TERM);
    assert_eq!(link.end().code(), Some(0), "{flags}: {:#?}", link.said);
    let warnings = link.said.iter().filter(|line| line.contains(" WARN "));
    warnings
        .filter(|line| !line.contains("`--insecure` was set"))
        .cloned()
        .collect()
}

#[test]
fn tls_needs_three_files() {
    let world = world();
    refused(
        &world,
        "--appio-ssl-certfile a",
        &["give also `--appio-ssl-ca-certfile` and `--appio-ssl-keyfile`"],
    );
    refused(
        &world,
        "--appio-ssl-certfile a --appio-ssl-keyfile b --appio-ssl-ca-certfile certificates/ca.crt",
        &["`--appio-ssl-certfile` does not point to a file"],
    );
}

#[test]
fn with_tls_launchers_prove_themselves() {
    let world = world();
    refused(
        &world,
        &format!("--isolation process {TLS}"),
        &[
            "flwr-quic keys join-secret --out",
            "--appio-join-secret-file",
        ],
    );
    let said = warnings(&world, &format!("{TLS} {SECRET}"));
    assert!(said.is_empty(), "{said:#?}");
}

#[test]
fn a_superexec_is_launched_whatever_the_flags() {
    for flags in ["", TLS, SECRET, &format!("{TLS} {SECRET}")] {
        let world = world();
        let path = path_with_app(&world);
        let flags = format!("--insecure --warm-apps off {flags}");
        let mut link = SuperLink::start(&world, &flags, &[("PATH", &path)]);
        link.wait_for("Starting Flower SuperExec");
        link.signal(Signal::TERM);
        assert_eq!(link.end().code(), Some(0), "{flags}: {:#?}", link.said);
    }
}

#[test]
fn a_second_address_without_tls_needs_a_first_one_with() {
    let world = world();
    refused(
        &world,
        "--appio-plaintext-address 127.0.0.1:9097",
        &["Exit Code: 104", "--appio-ssl-certfile"],
    );
    refused(
        &world,
        "--appio-plaintext-address nonsense",
        &["Exit Code: 600", "nonsense"],
    );
}

#[test]
fn join_secrets_that_cannot_be_used_are_named() {
    let world = world();
    let flags = |file: &str| format!("--isolation process --appio-join-secret-file {file}");
    refused(&world, &flags("absent"), &["absent", "check that"]);
    fs::write(world.path("short"), "short\n").unwrap();
    refused(
        &world,
        &flags("short"),
        &["5 characters", "flwr-quic keys join-secret"],
    );
    let open = Permissions::from_mode(0o644);
    fs::set_permissions(world.path("join-secret"), open).unwrap();
    let said = warnings(&world, &format!("{TLS} {SECRET}"));
    assert!(
        said.len() == 1 && said[0].contains("chmod 600"),
        "{said:#?}"
    );
}

#[test]
fn what_is_exposed_is_warned_of_with_what_closes_it() {
    let world = world();
    let said = warnings(&world, "");
    assert_eq!(said.len(), 1, "{said:#?}");
    for part in [
        "can launch apps",
        "--appio-ssl-certfile",
        "--appio-join-secret-file",
        "--serverappio-api-address 127.0.0.1:",
    ] {
        assert!(said[0].contains(part), "no {part:?} in {said:#?}");
    }
    let said = warnings(&world, SECRET);
    assert!(
        said.len() == 1 && said[0].contains("can read the join secret"),
        "{said:#?}"
    );
}

#[test]
fn the_second_address_is_warned_of_where_it_is_exposed() {
    let world = world();
    for (host, is_exposed) in [("127.0.0.1", false), ("0.0.0.0", true)] {
        let address = format!("{host}:{}", Ports::free().control);
        let said = warnings(
            &world,
            &format!("{TLS} {SECRET} --appio-plaintext-address {address}"),
        );
        assert_eq!(said.len(), usize::from(is_exposed), "{said:#?}");
        if is_exposed {
            for part in [
                address.as_str(),
                "can launch apps",
                "--appio-plaintext-address 127.0.0.1:",
            ] {
                assert!(said[0].contains(part), "no {part:?} in {said:#?}");
            }
        }
    }
}

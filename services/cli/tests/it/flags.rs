//! Flags and files that keep a SuperLink from starting, and what it says then.

use std::{fs, net::TcpListener};

use flwr_certs::{CaOptions, LeafOptions, WriteOptions, create_ca, create_server};

use crate::support::{Ended, Ports, World};

const INSECURE: &str = "--insecure --isolation process";

fn refused(world: &World, flags: &str) -> String {
    check_refused(world.run(&format!("superlink {flags}")))
}

fn check_refused(ended: Ended) -> String {
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.stdout.is_empty(), "{ended:?}");
    assert!(
        ended.stderr.contains(" INFO  Starting Flower SuperLink"),
        "{ended:?}"
    );
    assert!(
        !ended.stderr.contains('\x1b'),
        "colours in a file: {ended:?}"
    );
    assert!(!ended.stderr.contains("panic"), "{ended:?}");
    ended.reason().to_owned()
}

/// A refusal of one sentence on one line that names all of the parts.
fn sentence(world: &World, flags: &str, parts: &[&str]) {
    check_sentence(&refused(world, flags), flags, parts);
}

fn check_sentence(reason: &str, flags: &str, parts: &[&str]) {
    assert_eq!(reason.lines().count(), 1, "{flags}: {reason}");
    for part in parts {
        assert!(reason.contains(part), "{flags}: no {part:?} in {reason}");
    }
}

fn code(world: &World, flags: &str, code: u16, context: &str) {
    let reason = refused(world, flags);
    let lines: Vec<&str> = reason.lines().collect();
    assert_eq!(lines[0], format!("Exit Code: {code}"), "{flags}: {reason}");
    assert!(lines[1].contains(context), "{flags}: {reason}");
    assert!(!lines[2].is_empty(), "{flags}: {reason}");
    let page = format!("https://flower.ai/docs/framework/v1.22.0/en/ref-exit-codes/{code}.html");
    assert_eq!(
        lines.last().copied(),
        Some(format!("For more information, visit: <{page}>").as_str())
    );
}

#[test]
fn usage_errors_are_status_2_on_stderr() {
    let world = World::new();
    for flags in [
        "--bogus",
        "--ssl x",
        "--isolation docker",
        "--control-api-address",
        "--user-auth-config x",
    ] {
        let ended = world.run(&format!("superlink {flags}"));
        assert_eq!(ended.status, Some(2), "{flags}: {ended:?}");
        assert!(ended.stdout.is_empty(), "{flags}: {ended:?}");
        assert!(
            ended.stderr.contains("Usage: flwr-quic superlink"),
            "{flags}: {ended:?}"
        );
        assert!(ended.stderr.contains("error: "), "{flags}: {ended:?}");
    }
}

#[test]
fn help_and_version_are_status_0_on_stdout() {
    let world = World::new();
    for line in [
        "--help",
        "superlink --help",
        "superlink -h",
        "certs --help",
        "keys node -h",
    ] {
        let ended = world.run(line);
        assert_eq!(ended.status, Some(0), "{line}");
        assert!(
            ended.stdout.contains("Usage: flwr-quic"),
            "{line}: {ended:?}"
        );
        assert!(ended.stderr.is_empty(), "{line}: {ended:?}");
    }
    assert_eq!(
        world.good("--version"),
        format!("flwr-quic {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn s159_certificates_are_required_unless_insecure() {
    let world = World::new();
    sentence(
        &world,
        "",
        &["Certificates are required", "--ssl-certfile", "--insecure"],
    );
    sentence(&world, "--ssl-certfile=", &["Certificates are required"]);
    sentence(
        &world,
        "--ssl-certfile a",
        &["give also `--ssl-ca-certfile` and `--ssl-keyfile`"],
    );
    sentence(
        &world,
        "--ssl-certfile a --ssl-keyfile b",
        &["give also `--ssl-ca-certfile`"],
    );
    sentence(
        &world,
        "--ssl-ca-certfile a",
        &["give also `--ssl-certfile` and `--ssl-keyfile`"],
    );
}

#[test]
fn s159_certificate_paths_are_files_checked_in_order() {
    let world = World::new();
    world.good("certs ca");
    world.good("certs server");
    let flags = |ca: &str, certificate: &str, key: &str| {
        format!("--ssl-ca-certfile {ca} --ssl-certfile {certificate} --ssl-keyfile {key}")
    };
    let (ca, certificate, key) = (
        "certificates/ca.crt",
        "certificates/server.pem",
        "certificates/server.key",
    );
    sentence(
        &world,
        &flags("x", "x", "x"),
        &["`--ssl-ca-certfile` does not point to a file"],
    );
    sentence(
        &world,
        &flags("certificates", "x", "x"),
        &["`--ssl-ca-certfile` does not point to a file"],
    );
    sentence(
        &world,
        &flags(ca, "x", "x"),
        &["`--ssl-certfile` does not point to a file"],
    );
    sentence(
        &world,
        &flags(ca, certificate, "x"),
        &["`--ssl-keyfile` does not point to a file"],
    );
    fs::write(world.path("junk"), "junk").unwrap();
    sentence(
        &world,
        &flags("junk", certificate, key),
        &["junk holds no certificate"],
    );
    sentence(
        &world,
        &flags(ca, "junk", key),
        &["junk holds no certificate"],
    );
    sentence(
        &world,
        &flags(ca, certificate, "junk"),
        &["junk holds no private key"],
    );
    sentence(
        &world,
        &flags(ca, certificate, "certificates/ca/ca.key"),
        &["ca.key does not fit the certificate"],
    );
}

#[test]
fn an_expired_certificate_is_named() {
    let world = World::new();
    let (dir, write) = (world.path("old"), WriteOptions::default());
    let year_2001 = 1_000_000_000.0;
    let leaf = LeafOptions {
        days: 30,
        ..LeafOptions::default()
    };
    create_ca(&dir, &CaOptions::default(), &write, year_2001).unwrap();
    create_server(&dir, &leaf, &write, year_2001).unwrap();
    sentence(
        &world,
        "--ssl-ca-certfile old/ca.crt --ssl-certfile old/server.pem --ssl-keyfile old/server.key",
        &["old/server.pem expired on 2001-10-09"],
    );
}

#[test]
fn s160_removed_and_contradictory_flags_are_code_104() {
    let world = World::new();
    code(&world, "--executor x", 104, "--executor");
    code(&world, "--insecure --executor-dir x", 104, "--executor-dir");
    code(
        &world,
        "--insecure --executor-config=x",
        104,
        "--executor-config",
    );
    let both = "--insecure --exec-api-address 127.0.0.1:1 --control-api-address 127.0.0.1:2";
    code(
        &world,
        both,
        104,
        "Both `--control-api-address` and `--exec-api-address`",
    );
}

#[test]
fn s161_unparsable_addresses_are_code_600() {
    let world = World::new();
    for flag in [
        "--control-api-address",
        "--exec-api-address",
        "--serverappio-api-address",
        "--simulationio-api-address",
        "--fleet-api-address",
        "--health-server-address",
    ] {
        code(
            &world,
            &format!("{INSECURE} {flag} localhost:70000"),
            600,
            "Address (localhost:70000)",
        );
    }
    // Addresses come before certificates.
    code(
        &world,
        "--control-api-address foo",
        600,
        "Address (foo) cannot be parsed.",
    );
}

#[test]
fn s161_a_taken_port_is_named() {
    let world = World::new();
    let taker = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taker.local_addr().unwrap().port();
    for flag in [
        "--control-api-address",
        "--serverappio-api-address",
        "--fleet-api-address",
        "--health-server-address",
    ] {
        for host in ["0.0.0.0", "[::]", "127.0.0.1"] {
            let address = format!("{host}:{port}");
            let ended = world.run_on_free_ports(
                |ports| format!("{INSECURE} {} {flag} {address}", ports.flags()),
                |ended| ended.stderr.contains(&address),
            );
            let parts = [
                &format!("{address} is already in use"),
                &format!("lsof -i :{port}"),
                flag,
            ];
            check_sentence(&check_refused(ended), flag, &parts);
        }
    }
}

#[test]
fn databases_that_cannot_be_used_are_left_as_they_are() {
    let world = World::new();
    let other = "other.db";
    fs::write(world.path(other), "a letter, not a database").unwrap();
    fs::create_dir(world.path("folder")).unwrap();
    for (file, parts) in [
        (other, ["no SQLite database", "name another file"]),
        ("folder", ["is no file", "name another file"]),
        ("nowhere/state.db", ["nowhere", "No such file"]),
    ] {
        let flags = format!("{INSECURE} --database {file}");
        let ended =
            world.run_on_free_ports(|ports| format!("{} {flags}", ports.flags()), |_| false);
        let parts = ["`--database`", file, parts[0], parts[1]];
        check_sentence(&check_refused(ended), &flags, &parts);
    }
    let left = fs::read_to_string(world.path(other)).unwrap();
    assert_eq!(left, "a letter, not a database");
    assert!(!world.path("nowhere").exists());
}

#[test]
fn quic_goes_with_certificates_and_node_keys_only() {
    let world = World::new();
    for (flags, parts) in [
        ("--transport quic", ["`--insecure`", "TLS 1.3"]),
        (
            "--transport grpc,quic",
            ["`--insecure`", "--transport grpc"],
        ),
    ] {
        sentence(&world, &format!("{INSECURE} {flags}"), &parts);
    }
}

#[test]
fn a_key_list_that_cannot_be_used_is_named() {
    let world = World::new();
    fs::write(world.path("junk.csv"), "ssh-ed25519 AAAA\n").unwrap();
    for (list, part) in [
        ("absent.csv", "absent.csv does not exist"),
        ("junk.csv", "line 1 of junk.csv"),
    ] {
        let ended = world.run_on_free_ports(
            |ports| {
                format!(
                    "{INSECURE} {} --auth-list-public-keys {list}",
                    ports.flags()
                )
            },
            |_| false,
        );
        check_sentence(
            &check_refused(ended),
            list,
            &["--auth-list-public-keys", part],
        );
    }
}

#[test]
fn no_place_for_fabs_is_said() {
    let world = World::new();
    let mut command = world.command(&format!("superlink {INSECURE} {}", Ports::free().flags()));
    let ended = Ended::of(command.env_remove("HOME"));
    assert_eq!(ended.status, Some(1));
    assert!(ended.reason().contains("--storage-dir"), "{ended:?}");
}

#[test]
fn a_ca_of_clients_is_a_file_and_is_for_nodes_over_tls() {
    let world = World::new();
    world.good("certs ca");
    world.good("certs server");
    let tls = "--ssl-ca-certfile certificates/ca.crt --ssl-certfile certificates/server.pem \
               --ssl-keyfile certificates/server.key";
    sentence(
        &world,
        &format!("{INSECURE} --ssl-client-ca-certfile certificates/ca.crt"),
        &[
            "--ssl-client-ca-certfile",
            "--insecure",
            "exclude each other",
        ],
    );
    sentence(
        &world,
        &format!("{tls} --simulation --ssl-client-ca-certfile certificates/ca.crt"),
        &["--ssl-client-ca-certfile", "--simulation"],
    );
    for (file, part) in [
        ("none.crt", "none.crt does not exist"),
        ("certificates/server.key", "holds no certificate"),
    ] {
        let flags = |ports: Ports| {
            let ports = ports.flags();
            format!("{ports} {tls} --isolation process --ssl-client-ca-certfile {file}")
        };
        let reason = check_refused(world.run_on_free_ports(flags, |_| false));
        check_sentence(&reason, file, &["`--ssl-client-ca-certfile`", part]);
    }
}

//! A SuperLink that runs: what it logs, what it notices, how it ends.

use std::{ffi::OsStr, fs, net::TcpListener};

use flwr_certs::{NodeKeyPair, add_to_list};
use rustix::process::Signal;

use crate::support::{Ended, SuperLink, World};

const PLAIN: &str = "--insecure --isolation process";

/// Message and fields of a line, checked to begin with time and level.
fn words<'a>(line: &'a str, level: &str) -> &'a str {
    let (time, rest) = line.split_at("HH:MM:SS.mmm".len());
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "00:00:00.000", "{line}");
    rest.strip_prefix(&format!(" {level:<5} "))
        .unwrap_or_else(|| panic!("not {level}: {line}"))
}

#[test]
fn s162_signals_end_it_with_a_farewell_and_status_0() {
    let world = World::new();
    for signal in [Signal::INT, Signal::TERM, Signal::QUIT] {
        let mut link = SuperLink::start(&world, PLAIN, &[]);
        link.signal(signal);
        let status = link.end();
        assert_eq!(status.code(), Some(0), "{signal:?}: {:#?}", link.said);
        let last = link.said.last().map(|line| words(line, "INFO"));
        assert_eq!(last, Some("SuperLink terminated gracefully."), "{signal:?}");
    }
}

#[test]
fn it_says_in_flowers_words_what_it_starts() {
    let world = World::new();
    let mut link = SuperLink::start(&world, PLAIN, &[]);
    link.signal(Signal::TERM);
    link.end();
    let ports = link.ports;
    let said: Vec<&str> = link
        .said
        .iter()
        .filter(|line| line.contains(" INFO "))
        .map(|line| words(line, "INFO"))
        .collect();
    assert!(
        said[0].starts_with("Starting Flower SuperLink"),
        "{said:#?}"
    );
    assert_eq!(
        said[1..4],
        [
            format!(
                "Flower Deployment Runtime: Starting Control API on 127.0.0.1:{}",
                ports.control
            ),
            format!(
                "Flower Deployment Runtime: Starting ServerAppIo API on 0.0.0.0:{}",
                ports.serverappio
            ),
            format!(
                "Flower Deployment Runtime: Starting Fleet API (gRPC-rere) on 127.0.0.1:{}",
                ports.fleet
            ),
        ]
    );
}

#[test]
fn s164_s165_deprecated_flags_are_warned_of_and_work() {
    let world = World::new();
    for (flags, part) in [
        ("--fleet-api-num-workers 4", "only 1 worker"),
        ("--fleet-api-num-workers -1", "only 1 worker"),
        (
            "--auth-superlink-private-key x",
            "--auth-superlink-private-key",
        ),
        (
            "--auth-superlink-public-key x",
            "--auth-superlink-public-key",
        ),
        ("--flwr-dir x", "--flwr-dir"),
        ("--ssl-certfile x", "certificate flags are ignored"),
        ("--database :flwr-in-memory-state:", "`--insecure` was set"),
        ("--database :memory:", "`--insecure` was set"),
        (
            "--fleet-api-type grpc-adapter --auth-list-public-keys x",
            "--auth-list-public-keys",
        ),
    ] {
        let mut link = SuperLink::start(&world, &format!("{PLAIN} {flags}"), &[]);
        link.signal(Signal::TERM);
        assert_eq!(link.end().code(), Some(0), "{flags}: {:#?}", link.said);
        let mut warnings = link.said.iter().filter(|line| line.contains(" WARN "));
        assert!(
            warnings.any(|line| words(line, "WARN").contains(part)),
            "{flags}: {:#?}",
            link.said
        );
    }
}

#[test]
fn s160_the_deprecated_address_is_honoured() {
    let world = World::new();
    // Fleet in use ends it after Control was bound.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let fleet = taken.local_addr().unwrap().to_string();
    let ended = world.run_on_free_ports(
        |ports| {
            format!(
                "{PLAIN} --exec-api-address 127.0.0.1:{} --serverappio-api-address 127.0.0.1:{} --fleet-api-address {fleet}",
                ports.control, ports.serverappio
            )
        },
        |ended| ended.stderr.contains(&fleet),
    );
    assert!(
        ended
            .stderr
            .contains("`--exec-api-address` argument is deprecated"),
        "{ended:?}"
    );
    let asked = ended
        .stderr
        .split("Starting Control API on 127.0.0.1:")
        .nth(1);
    assert!(
        asked.is_some_and(|rest| !rest.starts_with("9093")),
        "{ended:?}"
    );
}

#[test]
fn what_nodes_speak_is_named_and_warned_of_where_they_are_not_authenticated() {
    let world = World::new();
    for (kind, name) in [
        ("grpc-rere", "gRPC-rere"),
        ("grpc-adapter", "GrpcAdapter"),
        ("rest", "REST"),
    ] {
        let mut link = SuperLink::start(&world, &format!("{PLAIN} --fleet-api-type {kind}"), &[]);
        link.signal(Signal::TERM);
        assert_eq!(link.end().code(), Some(0), "{:#?}", link.said);
        let starting = format!(
            "Starting Fleet API ({name}) on 127.0.0.1:{}",
            link.ports.fleet
        );
        let warning = format!("Nodes are not authenticated with `--fleet-api-type {kind}`");
        let says = |part: &str| link.said.iter().any(|said| said.contains(part));
        assert!(says(&starting), "{:#?}", link.said);
        assert_eq!(says(&warning), kind != "grpc-rere", "{:#?}", link.said);
    }
}

#[test]
fn it_starts_with_the_certificates_that_certs_makes() {
    let world = World::new();
    world.good("certs ca");
    world.good("certs server");
    for (certificate, key) in [
        ("server.pem", "server.key"),
        ("server/server.crt", "server/server.key"),
    ] {
        let flags = format!(
            "--isolation process --ssl-ca-certfile certificates/ca.crt --ssl-certfile certificates/{certificate} \
             --ssl-keyfile certificates/{key}"
        );
        let mut link = SuperLink::start(&world, &flags, &[]);
        link.signal(Signal::TERM);
        assert_eq!(link.end().code(), Some(0), "{:#?}", link.said);
        let mut warnings = link.said.iter().filter(|line| line.contains(" WARN "));
        assert!(
            warnings.all(|line| line.contains("The AppIo API on 0.0.0.0:")),
            "{:#?}",
            link.said
        );
    }
}

#[test]
fn a_changed_key_list_is_read_again() {
    let world = World::new();
    let list = world.path("keys.csv");
    let add = || {
        let key = NodeKeyPair::generate().unwrap();
        add_to_list(&list, &key.public().to_openssh("node")).unwrap();
    };
    add();
    let mut link = SuperLink::start(
        &world,
        &format!("{PLAIN} --auth-list-public-keys keys.csv"),
        &[],
    );
    let first = link
        .said
        .iter()
        .find(|line| line.contains("Node authentication"))
        .unwrap();
    assert_eq!(
        words(first, "INFO"),
        "Node authentication enabled with 1 known public keys"
    );
    add();
    link.wait_for("Node authentication enabled with 2 known public keys");
    fs::write(&list, "junk\n").unwrap();
    let line = link.wait_for("The known public keys stay as they were");
    assert!(
        words(&line, "WARN").contains("line 1 of keys.csv"),
        "{line}"
    );
    fs::write(&list, "").unwrap();
    link.wait_for("is empty now");
    link.wait_for("Node authentication enabled with 0 known public keys");
    link.signal(Signal::TERM);
    assert_eq!(link.end().code(), Some(0));
}

#[test]
fn json_lines_are_objects_with_time_level_and_message() {
    let world = World::new();
    let mut link = SuperLink::start(&world, &format!("{PLAIN} --log-format json"), &[]);
    link.signal(Signal::TERM);
    link.end();
    for line in &link.said {
        let object: serde_json::Value = serde_json::from_str(line).expect(line);
        for key in ["timestamp", "level", "message"] {
            assert!(object[key].is_string(), "{key} of {line}");
        }
    }
    assert!(
        link.said
            .last()
            .unwrap()
            .contains(r#""message":"SuperLink terminated gracefully.""#)
    );

    let ended = world.run("superlink --insecure --log-format=json --control-api-address foo");
    let last: serde_json::Value =
        serde_json::from_str(ended.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "ERROR");
    assert!(
        last["message"]
            .as_str()
            .unwrap()
            .starts_with("Exit Code: 600\n")
    );
}

#[test]
fn the_level_is_flowers_variable() {
    let world = World::new();
    let said = |level: &str| {
        let mut command = world.command("superlink --insecure --flwr-dir x --transport quic");
        Ended::of(command.env("FLWR_LOG_LEVEL", OsStr::new(level))).stderr
    };
    let levels =
        |text: &str| ["INFO", "WARN", "ERROR"].map(|level| text.contains(&format!(" {level:<5} ")));
    assert_eq!(levels(&said("INFO")), [true, true, true]);
    assert_eq!(levels(&said("warning")), [false, true, true]);
    assert_eq!(levels(&said("ERROR")), [false, false, true]);
    let silent = said("off");
    assert_eq!(silent.lines().count(), 1, "{silent}");
    assert!(silent.starts_with("`--transport quic`"), "{silent}");
    let loud = said("LOUD");
    assert_eq!(levels(&loud), [true, true, true]);
    assert!(loud.contains("FLWR_LOG_LEVEL is set to \"LOUD\""), "{loud}");
}

//! Which crate may know which: the table in ARCHITECTURE.md, checked against cargo's own graph.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// What each crate of ours may depend on, of ours.
const MAY_USE: &[(&str, &[&str])] = &[
    ("flwr-api", &["flwr-transport"]),
    ("flwr-certs", &[]),
    (
        "flwr-compat-grpc",
        &["flwr-api", "flwr-certs", "flwr-proto", "flwr-transport"],
    ),
    ("flwr-fab", &["flwr-api"]),
    ("flwr-proto", &[]),
    ("flwr-state", &["flwr-api", "flwr-transport"]),
    (
        "flwr-state-embedded",
        &["flwr-api", "flwr-state", "flwr-transport"],
    ),
    ("flwr-superexec", &["flwr-api", "flwr-transport"]),
    (
        "flwr-superlink",
        &["flwr-api", "flwr-fab", "flwr-state", "flwr-transport"],
    ),
    (
        "flwr-supernode",
        &["flwr-api", "flwr-fab", "flwr-state", "flwr-transport"],
    ),
    ("flwr-transport", &[]),
    ("flwr-transport-quic", &["flwr-transport"]),
];

/// What no service may have anywhere below it.
const WIRE_AND_STORAGE: &[&str] = &[
    "h2",
    "hyper",
    "object_store",
    "prost",
    "quinn",
    "rusqlite",
    "rustls",
    "tokio-postgres",
    "tonic",
];

/// The crates that are kept free of it.
const SERVICES: &[&str] = &[
    "flwr-api",
    "flwr-fab",
    "flwr-state",
    "flwr-superexec",
    "flwr-superlink",
    "flwr-supernode",
    "flwr-transport",
];

/// Every package's normal and build dependencies, by name.
fn graph() -> BTreeMap<String, BTreeSet<String>> {
    // What other platforms need was not downloaded.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", &platform])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let names: BTreeMap<String, String> = list(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let mut graph = BTreeMap::<_, BTreeSet<_>>::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let edges = graph.entry(names[&text(&node["id"])].clone()).or_default();
        for dependency in list(&node["deps"]) {
            let kinds = list(&dependency["dep_kinds"]);
            if kinds.iter().any(|kind| kind["kind"] != "dev") {
                edges.insert(names[&text(&dependency["pkg"])].clone());
            }
        }
    }
    graph
}

fn everything_below(graph: &BTreeMap<String, BTreeSet<String>>, name: &str) -> BTreeSet<String> {
    let mut below = BTreeSet::new();
    let mut next = vec![name.to_owned()];
    while let Some(name) = next.pop() {
        for dependency in graph.get(&name).into_iter().flatten() {
            if below.insert(dependency.clone()) {
                next.push(dependency.clone());
            }
        }
    }
    below
}

#[test]
fn crates_use_only_what_the_table_allows() {
    let graph = graph();
    for (name, allowed) in MAY_USE {
        let used: Vec<_> = graph[*name]
            .iter()
            .filter(|used| used.starts_with("flwr-"))
            .collect();
        for used in used {
            assert!(
                allowed.contains(&used.as_str()),
                "{name} may not use {used}"
            );
        }
    }
}

#[test]
fn every_library_is_in_the_table() {
    const ABOVE: &[&str] = &["flwr-bench-emu", "flwr-bench-link", "flwr-e2e", "flwr-quic"];
    for name in graph().keys().filter(|name| name.starts_with("flwr-")) {
        let known =
            ABOVE.contains(&name.as_str()) || MAY_USE.iter().any(|(known, _)| known == name);
        assert!(known, "{name} is missing in the table");
    }
}

#[test]
fn services_know_no_wire_and_no_storage() {
    let graph = graph();
    for name in SERVICES {
        let below = everything_below(&graph, name);
        for banned in WIRE_AND_STORAGE {
            assert!(
                !below.contains(*banned),
                "{name} may not have {banned} below it"
            );
        }
    }
}

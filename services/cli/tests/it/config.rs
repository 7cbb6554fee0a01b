//! Configuration files, by what daemons do with them.

use std::fs;

use crate::support::{Ended, SuperLink, World};

fn world(text: &str) -> World {
    let world = World::new();
    fs::write(world.path("flwr.toml"), text).unwrap();
    world
}

#[test]
fn a_superlink_starts_from_a_file() {
    let world = world("[superlink]\ninsecure = true\nisolation = 'process'\nhold-seconds = 0\n");
    let link = SuperLink::start(&world, "--config flwr.toml", &[]);
    let said = link.said.join("\n");
    assert!(
        said.contains("Configuration from flwr.toml: hold-seconds, insecure, isolation"),
        "{said}"
    );
    let path = world.path("flwr.toml");
    let named = [("FLWR_QUIC_CONFIG", path.as_os_str())];
    let link = SuperLink::start(&world, "--isolation process", &named);
    let said = link.said.join("\n");
    assert!(
        said.contains("flwr.toml: hold-seconds, insecure\n"),
        "{said}"
    );
}

#[test]
fn the_environment_comes_before_the_file() {
    let world = world("[supernode]\ninsecure = true\ntransport = 'grpc'\nsuperlink = 'x'\n");
    let ended = world.run("supernode --config flwr.toml");
    assert!(ended.reason().starts_with("Exit Code: 600"), "{ended:?}");
    let mut command = world.command("supernode --config flwr.toml");
    let ended = Ended::of(command.env("FLWR_QUIC_TRANSPORT", "quic"));
    let reason = ended.reason();
    assert!(reason.contains("exclude each other"), "{ended:?}");
    assert!(
        reason.contains("(flwr.toml sets `insecure` in line 2.)"),
        "{ended:?}"
    );
}

#[test]
fn flags_that_contradict_a_file_say_so() {
    let world = world("[supernode]\n\ninsecure = true\n");
    let ended = world.run("supernode --config flwr.toml --root-certificates ca.crt");
    assert_eq!(ended.status, Some(1), "{ended:?}");
    let reason = ended.reason();
    assert!(
        reason.contains("Conflicting options") && reason.contains("`insecure` in line 3"),
        "{ended:?}"
    );
}

#[test]
fn mistakes_in_a_file_are_usage_errors() {
    let world = world("[superexec]\nplugin-typ = 'serverapp'\n");
    let ended = world.run("superexec --config flwr.toml");
    assert_eq!(ended.status, Some(2), "{ended:?}");
    assert_eq!(
        ended.stderr,
        "error: flwr.toml, line 2: `plugin-typ` in [superexec]: there is no such flag; did you mean `plugin-type`?\n"
    );
    let ended = world.run("superexec --config none.toml");
    assert_eq!(ended.status, Some(2), "{ended:?}");
    assert!(
        ended.stderr.contains("none.toml cannot be read"),
        "{ended:?}"
    );
}

//! The child of subprocess isolation, played by a shell script.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::PermissionsExt as _,
    time::Duration,
};

use rustix::process::Signal;
use tokio::time::Instant;

use crate::support::{SuperLink, World, is_alive, wait_until};

/// Puts a `flower-superexec` on the path that does as told; `NOTE` notes its process id and arguments.
fn play(world: &World, script: &str) -> OsString {
    let bin = world.path("bin");
    fs::create_dir_all(&bin).unwrap();
    let program = bin.join("flower-superexec");
    let text = format!(
        "#!/bin/sh\n{}\n",
        script.replace("NOTE", "echo \"$$ $@\" >> launches")
    );
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    std::env::join_paths([bin.as_path(), "/usr/bin".as_ref(), "/bin".as_ref()]).unwrap()
}

/// Process id and arguments of each launch.
fn launches(world: &World) -> Vec<(i32, String)> {
    let text = fs::read_to_string(world.path("launches")).unwrap_or_default();
    let whole_lines = text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    whole_lines
        .map(|line| {
            let (pid, arguments) = line.trim_end().split_once(' ').unwrap();
            (pid.parse().unwrap(), arguments.to_owned())
        })
        .collect()
}

fn start(world: &World, path: &OsStr) -> SuperLink {
    let link = SuperLink::start(world, "--insecure", &[("PATH", path)]);
    wait_until("launched", || !launches(world).is_empty());
    link
}

#[test]
fn it_is_launched_with_flowers_arguments_and_ended_with_us() {
    let world = World::new();
    let path = play(&world, "NOTE; exec sleep 300");
    let mut link = start(&world, &path);
    let (pid, arguments) = launches(&world).remove(0);
    assert_eq!(
        arguments,
        format!(
            "--insecure --appio-api-address 127.0.0.1:{} --plugin-type serverapp --parent-pid {}",
            link.ports.serverappio,
            link.pid()
        )
    );
    link.signal(Signal::TERM);
    assert_eq!(link.end().code(), Some(0), "{:#?}", link.said);
    assert!(!is_alive(pid), "the child outlives its parent");
    assert_eq!(launches(&world).len(), 1);
    assert!(
        !link.said.iter().any(|line| line.contains("ERROR")),
        "{:#?}",
        link.said
    );
}

#[test]
fn a_child_that_does_not_end_is_killed() {
    let world = World::new();
    let path = play(&world, "trap '' TERM; NOTE; exec sleep 300");
    let mut link = start(&world, &path);
    let (pid, _) = launches(&world).remove(0);
    let asked = Instant::now();
    link.signal(Signal::INT);
    assert_eq!(link.end().code(), Some(0), "{:#?}", link.said);
    assert!(
        asked.elapsed() >= Duration::from_secs(5),
        "it got less than its five seconds"
    );
    assert!(!is_alive(pid), "the child outlives its parent");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let world = World::new();
    let path = play(&world, "trap '' TERM; NOTE; exec sleep 30");
    let mut link = start(&world, &path);
    let (pid, _) = launches(&world).remove(0);
    link.signal(Signal::TERM);
    link.wait_for("Shutting down");
    let asked = Instant::now();
    link.signal(Signal::TERM);
    wait_until("ended", || link.try_end().is_some());
    assert!(
        asked.elapsed() < Duration::from_secs(4),
        "it waited for its child"
    );
    assert_eq!(
        link.try_end().and_then(|status| status.code()),
        Some(128 + 15)
    );
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL)
        .unwrap();
}

#[test]
fn a_child_that_dies_is_launched_again_ever_more_slowly() {
    let world = World::new();
    let path = play(&world, "NOTE; exit 3");
    let mut link = start(&world, &path);
    let line = link.wait_for("flower-superexec ended");
    assert!(line.contains("exit status: 3"), "{line}");
    link.wait_for("again in 1 s");
    link.wait_for("again in 2 s");
    assert_eq!(launches(&world).len(), 2, "{:#?}", link.said);
    link.signal(Signal::TERM);
    assert_eq!(link.end().code(), Some(0), "{:#?}", link.said);
}

#[test]
fn a_killed_child_is_replaced() {
    let world = World::new();
    let path = play(&world, "NOTE; exec sleep 300");
    let mut link = start(&world, &path);
    let (first, _) = launches(&world).remove(0);
    rustix::process::kill_process(rustix::process::Pid::from_raw(first).unwrap(), Signal::KILL)
        .unwrap();
    link.wait_for("flower-superexec ended (signal: 9");
    wait_until("launched again", || launches(&world).len() == 2);
    link.signal(Signal::TERM);
    assert_eq!(link.end().code(), Some(0), "{:#?}", link.said);
    assert!(
        !is_alive(launches(&world)[1].0),
        "the child outlives its parent"
    );
}

#[test]
fn without_the_program_nothing_is_served() {
    let world = World::new();
    let ended = world.run_on_free_ports(|ports| format!("--insecure {}", ports.flags()), |_| false);
    assert_eq!(ended.status, Some(1), "{ended:?}");
    for part in [
        "flower-superexec is not on PATH",
        "pip install flwr==1.22.0",
        "--isolation process",
    ] {
        assert!(ended.reason().contains(part), "{ended:?}");
    }
}

#[test]
fn process_isolation_launches_nothing() {
    let world = World::new();
    let path = play(&world, "NOTE; exec sleep 300");
    let mut link = SuperLink::start(&world, "--insecure --isolation process", &[("PATH", &path)]);
    link.signal(Signal::TERM);
    assert_eq!(link.end().code(), Some(0));
    assert_eq!(launches(&world), []);
}

//! The SuperExec of subprocess isolation: this program's own, which never finds an app to launch here.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::PermissionsExt as _,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::support::{SuperLink, World, is_alive, wait_until};

/// A path on which there is a `flwr-serverapp`.
pub(crate) fn path_with_app(world: &World) -> OsString {
    let bin = world.path("bin");
    fs::create_dir_all(&bin).unwrap();
    let program = bin.join("flwr-serverapp");
    fs::write(&program, "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    std::env::join_paths([bin.as_path(), "/usr/bin".as_ref(), "/bin".as_ref()]).unwrap()
}

/// The children of a process, with their arguments.
fn children(parent: i32) -> BTreeMap<i32, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let (Ok(stat), Ok(line)) = (
            fs::read_to_string(entry.path().join("stat")),
            fs::read_to_string(entry.path().join("cmdline")),
        ) else {
            continue;
        };
        let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest);
        let fields: Vec<&str> = after_name.unwrap_or_default().split(' ').collect();
        if fields[0] != "Z" && fields[1] == parent.to_string() {
            let arguments = line.trim_end_matches('\0').split('\0').skip(1);
            found.insert(pid, arguments.collect::<Vec<_>>().join(" "));
        }
    }
    found
}

fn start(world: &World, flags: &str) -> SuperLink {
    let path = path_with_app(world);
    SuperLink::start(world, flags, &[("PATH", &path)])
}

/// The SuperExec's process, once it says that it works.
fn superexec(link: &mut SuperLink) -> (i32, String) {
    link.wait_for("Starting Flower SuperExec");
    let found = children(link.pid());
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap()
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[test]
fn it_is_launched_for_serverapps_and_ended_with_us() {
    let world = World::new();
    let mut link = start(&world, "--insecure --warm-apps off");
    let (pid, arguments) = superexec(&mut link);
    assert_eq!(
        arguments,
        format!(
            "superexec --insecure --appio-api-address 127.0.0.1:{} --plugin-type serverapp --parent-pid {} \
             --warm-apps off --log-format human",
            link.ports.serverappio,
            link.pid()
        )
    );
    link.signal(Signal::TERM);
    assert_eq!(link.end().code(), Some(0), "{:#?}", link.said);
    assert!(!is_alive(pid), "the child outlives its parent");
    assert!(
        !link.said.iter().any(|line| line.contains("ERROR")),
        "{:#?}",
        link.said
    );
}

#[test]
fn test_124_it_ends_when_its_parent_is_killed() {
    let world = World::new();
    let mut link = start(&world, "--insecure --warm-apps off");
    let (pid, _) = superexec(&mut link);
    link.signal(Signal::KILL);
    let killed = Instant::now();
    // The parent of a test's process is the test, which takes its status: only then is it gone.
    wait_until("gone", || link.try_end().is_some());
    wait_until("ended", || !is_alive(pid));
    assert!(killed.elapsed() < Duration::from_secs(1));
}

#[test]
fn one_that_does_not_end_is_killed() {
    let world = World::new();
    let mut link = start(&world, "--insecure --warm-apps off");
    let (pid, _) = superexec(&mut link);
    signal(pid, Signal::STOP);
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
fn a_second_signal_ends_us_at_once() {
    let world = World::new();
    let mut link = start(&world, "--insecure --warm-apps off");
    let (pid, _) = superexec(&mut link);
    signal(pid, Signal::STOP);
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
    signal(pid, Signal::KILL);
}

#[test]
fn one_that_is_killed_is_replaced_ever_more_slowly() {
    let world = World::new();
    let mut link = start(&world, "--insecure --warm-apps off");
    for seconds in [1, 2] {
        let (pid, _) = superexec(&mut link);
        signal(pid, Signal::KILL);
        link.wait_for("SuperExec ended (signal: 9");
        link.wait_for(&format!("again in {seconds} s"));
    }
    let (pid, _) = superexec(&mut link);
    link.signal(Signal::TERM);
    assert_eq!(link.end().code(), Some(0), "{:#?}", link.said);
    assert!(!is_alive(pid), "the child outlives its parent");
}

#[test]
fn without_the_apps_program_nothing_is_served() {
    let world = World::new();
    let ended = world.run_on_free_ports(|ports| format!("--insecure {}", ports.flags()), |_| false);
    assert_eq!(ended.status, Some(1), "{ended:?}");
    for part in [
        "flwr-serverapp is not on PATH",
        "pip install flwr==1.22.0",
        "--isolation process",
    ] {
        assert!(ended.reason().contains(part), "{ended:?}");
    }
}

#[test]
fn process_isolation_launches_nothing() {
    let world = World::new();
    let mut link = start(&world, "--insecure --isolation process");
    assert_eq!(children(link.pid()), BTreeMap::new());
    link.signal(Signal::TERM);
    assert_eq!(link.end().code(), Some(0));
}

#[test]
fn test_125_what_it_cannot_do_without_is_said() {
    let world = World::new();
    let bin: &OsStr = world.dir.path().as_os_str();
    for (line, status, part) in [
        ("superexec", 2, "--appio-api-address"),
        (
            "superexec --insecure --appio-api-address x:1 --plugin-type quantumapp",
            2,
            "quantumapp",
        ),
        (
            "superexec --insecure --appio-api-address nonsense --plugin-type clientapp",
            1,
            "Exit Code: 600",
        ),
        (
            "superexec --insecure --root-certificates x --appio-api-address x:1 --plugin-type clientapp",
            1,
            "Conflicting options",
        ),
        (
            "superexec --root-certificates absent --appio-api-address x:1 --plugin-type clientapp",
            1,
            "does not point to a file",
        ),
        (
            "superexec --insecure --appio-api-address x:1 --plugin-type clientapp",
            1,
            "flwr-clientapp is not on PATH",
        ),
    ] {
        let ended = crate::support::Ended::of(world.command(line).env("PATH", bin));
        assert_eq!(ended.status, Some(status), "{line}: {ended:?}");
        assert!(ended.stderr.contains(part), "{line}: {ended:?}");
    }
}

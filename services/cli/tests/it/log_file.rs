//! Log lines in a file, as well as on stderr.

use std::{ffi::OsStr, fs};

use rustix::process::Signal;

use crate::support::{SuperLink, World, wait_until};

const PLAIN: &str = "--insecure --isolation process";

/// Without the time at its beginning, which each of them takes for itself.
fn words(line: &str) -> String {
    line.split_once(' ')
        .map_or(line, |(_, rest)| rest)
        .to_owned()
}

#[test]
fn a_file_has_the_lines_of_stderr() {
    let world = World::new();
    let file = world.path("daemon.log");
    let flags = format!("{PLAIN} --log-file {}", file.display());
    let mut link = SuperLink::start(&world, &flags, &[]);
    // The last that it does before it serves.
    link.wait_for("memory budget");
    link.signal(Signal::TERM);
    assert_eq!(link.end().code(), Some(0), "{:#?}", link.said);
    let text = fs::read_to_string(&file).unwrap();
    let said: Vec<_> = link.said.iter().map(|line| words(line)).collect();
    let written: Vec<_> = text.lines().map(words).collect();
    assert_eq!(written, said);
    assert!(text.contains("terminated gracefully"), "{text}");
}

#[test]
fn a_file_is_json_if_the_log_is() {
    let world = World::new();
    let file = world.path("daemon.log");
    fs::write(
        world.path("flwr.toml"),
        format!(
            "[superlink]\nlog-format = \"json\"\nlog-file = {:?}\nlog-keep = 1\n",
            file.display().to_string()
        ),
    )
    .unwrap();
    let flags = format!("{PLAIN} --config {}", world.path("flwr.toml").display());
    let mut link = SuperLink::start(&world, &flags, &[]);
    link.signal(Signal::TERM);
    assert_eq!(link.end().code(), Some(0), "{:#?}", link.said);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.lines().count() > 3, "{text}");
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["message"].is_string(), "{line}");
    }
}

#[test]
fn a_file_that_is_large_begins_anew() {
    let world = World::new();
    let file = world.path("daemon.log");
    let flags = format!(
        "{PLAIN} --log-file {} --log-rotate-size 500 --log-keep 2",
        file.display()
    );
    for _ in 0..5 {
        let mut link = SuperLink::start(&world, &flags, &[("FLWR_LOG_LEVEL", OsStr::new("DEBUG"))]);
        link.signal(Signal::TERM);
        assert_eq!(link.end().code(), Some(0), "{:#?}", link.said);
    }
    let is_log = |name: &str| name.starts_with("daemon.log");
    let names = fs::read_dir(world.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| is_log(name)).collect();
    names.sort();
    assert_eq!(names, ["daemon.log", "daemon.log.1", "daemon.log.2"]);
    for name in names {
        assert!(fs::metadata(world.path(&name)).unwrap().len() <= 500);
    }
}

#[test]
fn a_file_that_cannot_be_written_stops_nobody() {
    let world = World::new();
    for (file, why) in [
        ("/dev/full".into(), "No space left"),
        (world.path("no/folder"), "No such file"),
    ] {
        let flags = format!("{PLAIN} --log-file {}", file.display());
        let mut link = SuperLink::start(&world, &flags, &[]);
        if !link.said.iter().any(|line| line.contains(why)) {
            link.wait_for(why);
        }
        let about = |line: &&String| line.contains(why);
        let line = link.said.iter().find(about).unwrap();
        assert!(line.contains("--log-file"), "{line}");
        assert!(line.contains("on stderr only"), "{line}");
        link.signal(Signal::TERM);
        assert_eq!(link.end().code(), Some(0), "{:#?}", link.said);
        assert_eq!(link.said.iter().filter(about).count(), 1);
    }
}

#[test]
fn a_file_that_can_be_written_again_is() {
    let world = World::new();
    let file = world.path("later/daemon.log");
    let flags = format!("{PLAIN} --log-file {}", file.display());
    let mut link = SuperLink::start(&world, &flags, &[]);
    fs::create_dir(world.path("later")).unwrap();
    // Whoever calls is heard of.
    let port = link.ports.control;
    wait_until("the file to be written", || {
        let _ended = std::net::TcpStream::connect(("127.0.0.1", port))
            .and_then(|mut stream| std::io::Write::write_all(&mut stream, b"nonsense\r\n\r\n"));
        file.exists()
    });
    link.wait_for("is written again");
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.is_empty());
}

//! What a configuration file can say, beside the command line.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::args::{Answer, Asked, command_line, parse};

/// A directory with a configuration file.
struct World(TempDir);

impl World {
    fn of(text: &str) -> Self {
        let world = Self(TempDir::new().unwrap());
        fs::write(world.path(), text).unwrap();
        world
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("flwr.toml")
    }

    /// With the file named in front of the other flags.
    fn parse(&self, daemon: &str, flags: &[String]) -> Result<Asked, Answer> {
        let path = self.path().into_os_string();
        let args = ["flwr-quic", daemon, "--config"].map(OsString::from);
        let flags = flags.iter().map(OsString::from);
        parse(args.into_iter().chain([path]).chain(flags))
    }

    fn refusal(&self, daemon: &str, flags: &[String]) -> String {
        let answer = self.parse(daemon, flags).expect_err("refused");
        assert!(answer.is_error);
        answer.text
    }
}

fn without_file(daemon: &str, flags: &[String]) -> String {
    let args = ["flwr-quic", daemon].map(OsString::from);
    let asked = parse(args.into_iter().chain(flags.iter().map(OsString::from))).unwrap();
    format!("{:?}", asked.command)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A value that is not the default, as an argument and in TOML.
fn sample(flag: &Arg) -> (String, String) {
    let long = flag.get_long().unwrap();
    if matches!(flag.get_action(), ArgAction::SetTrue) {
        return (format!("--{long}"), "true".to_owned());
    }
    let default = flag.get_default_values().first();
    let possible = flag.get_possible_values();
    let other = possible
        .iter()
        .map(|value| value.get_name())
        .find(|name| default.is_none_or(|default| default != name));
    let (value, toml) = match other {
        Some(name) => (name, format!("'{name}'")),
        None if word(flag, &DeValue::Boolean(true))
            .unwrap_err()
            .contains("quotes") =>
        {
            ("2", "'2'".to_owned())
        }
        None if flag.get_id() == "memory_budget" => ("64M", "'64M'".to_owned()),
        None => ("2", "2".to_owned()),
    };
    let is_list = matches!(flag.get_action(), ArgAction::Append);
    let toml = if is_list { format!("[{toml}]") } else { toml };
    (format!("--{long}={value}"), toml)
}

#[test]
fn every_flag_of_every_daemon_means_the_same_in_a_file() {
    let clap = command_line();
    for name in DAEMONS {
        let daemon = clap.find_subcommand(name).unwrap();
        let mut count = 0;
        for flag in flags(daemon) {
            let required = flags(daemon)
                .filter(|other| other.is_required_set() && other.get_id() != flag.get_id())
                .map(|other| sample(other).0);
            let mut arguments: Vec<_> = required.collect();
            let (argument, toml) = sample(flag);
            let long = flag.get_long().expect("flags are long");
            let world = World::of(&format!("[{name}]\n{long} = {toml}\n"));
            let asked = world.parse(name, &arguments);
            let asked = asked.unwrap_or_else(|answer| panic!("{name} {long}: {}", answer.text));
            let from_file = format!("{:?}", asked.command);
            if !flag.is_required_set() {
                assert_ne!(from_file, without_file(name, &arguments), "{name} {long}");
            }
            arguments.push(argument);
            assert_eq!(from_file, without_file(name, &arguments), "{name} {long}");
            // And of the two the command line counts.
            let asked = world.parse(name, &arguments).unwrap();
            assert!(asked.file.entries.is_empty(), "{name} {long}");
            count += 1;
        }
        let all = daemon.get_arguments().count();
        assert_eq!(count + 1, all, "{name}: all but the flag for the file");
    }
}

#[test]
fn the_command_line_comes_before_the_file() {
    let world = World::of("[supernode]\ntransport = 'quic'\nmax-retries = 3\ninsecure = false\n");
    let asked = world.parse("supernode", &words("--transport=auto --superlink a:1"));
    let said = format!("{:?}", asked.unwrap().command);
    let same = words("--max-retries 3 --transport auto --superlink a:1");
    assert_eq!(said, without_file("supernode", &same));
    // An abbreviation is a flag as well.
    let asked = world
        .parse("supernode", &words("--transp grpc --max-r 1"))
        .unwrap();
    assert_eq!(asked.file.entries.len(), 1);
}

#[test]
fn values_are_of_the_types_that_toml_has() {
    for (toml, flags) in [
        ("hold-seconds = 2.5", "--hold-seconds 2.5"),
        ("hold-seconds = '2.5'", "--hold-seconds 2.5"),
        ("fleet-api-num-workers = 0x10", "--fleet-api-num-workers 16"),
        (
            "fleet-api-num-workers = -1_0",
            "--fleet-api-num-workers -10",
        ),
        ("transport = ['grpc', 'quic']", "--transport grpc,quic"),
        ("transport = 'grpc,quic'", "--transport grpc,quic"),
        ("transport = []", ""),
        ("insecure = false", ""),
        ("database = 'a b=c'", ""),
    ] {
        let world = World::of(&format!("[superlink]\n{toml}\n[supernode]\nbogus = 1\n"));
        let asked = world
            .parse("superlink", &[])
            .unwrap_or_else(|e| panic!("{}", e.text));
        let mut flags = words(flags);
        if toml.starts_with("database") {
            flags = vec!["--database=a b=c".to_owned()];
        }
        assert_eq!(
            format!("{:?}", asked.command),
            without_file("superlink", &flags),
            "{toml}"
        );
    }
}

#[test]
fn mistakes_are_named_with_file_line_and_key() {
    for (toml, parts) in [
        (
            "[supernode]\nsuperlnik = 'a:1'",
            &[
                "line 2",
                "`superlnik` in [supernode]",
                "did you mean `superlink`?",
            ][..],
        ),
        (
            "[supernode]\nmax_retries = 1",
            &["line 2", "did you mean `max-retries`?"],
        ),
        (
            "[supernode]\nxyzzy = 1",
            &["line 2", "`xyzzy`", "`--help` lists"],
        ),
        ("[supernode]\nconfig = 'x'", &["line 2", "`config`"]),
        ("[supernode]\nhelp = true", &["line 2", "`help`"]),
        (
            "\n\n[superlnik]\n",
            &["line 3", "[superlnik]", "did you mean [superlink]?"],
        ),
        (
            "\ninsecure = true\n",
            &["line 2", "`insecure` is in no table", "[supernode]"],
        ),
        (
            "[supernode]\ninsecure = 'yes'",
            &["line 2", "`insecure`", "true or false"],
        ),
        (
            "[supernode]\nsuperlink = 9092",
            &["line 2", "`superlink`", "string"],
        ),
        (
            "[supernode]\nmax-retries = true",
            &["line 2", "string or a number"],
        ),
        (
            "[supernode]\nmax-retries = [1]",
            &["line 2", "string or a number"],
        ),
        ("[supernode]\nsuperlink = {a = 1}", &["line 2", "string"]),
        (
            "[supernode.superlink]\na = 1",
            &["line 1", "`superlink`", "string"],
        ),
        (
            "[supernode]\nmax-retries = 'x'",
            &["'x'", "--max-retries", "note: ", "`max-retries` in line 2"],
        ),
        ("[supernode]\ninsecure = yes", &["line 2", "not TOML"]),
        (
            "[supernode]\ninsecure = true\ninsecure = true",
            &["line 3", "not TOML", "duplicate key"],
        ),
        (
            "[supernode]\nrest = true",
            &["--grpc-rere", "cannot be used with", "`rest` in line 2"],
        ),
    ] {
        let world = World::of(toml);
        let said = world.refusal("supernode", &words("--grpc-rere"));
        let name = world.path().display().to_string();
        for part in [&[name.as_str()], parts].concat() {
            assert!(said.contains(part), "{toml}: no {part:?} in {said}");
        }
        assert!(!said.contains("panic"), "{said}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let world = World::of("");
    fs::remove_file(world.path()).unwrap();
    let said = world.refusal("superlink", &[]);
    assert!(said.contains("flwr.toml cannot be read"), "{said}");
    fs::write(world.path(), [0xff, 0xfe]).unwrap();
    let said = world.refusal("superlink", &[]);
    assert!(said.contains("flwr.toml cannot be read"), "{said}");
    // Help needs none.
    assert!(
        !world
            .parse("superlink", &words("--help"))
            .unwrap_err()
            .is_error
    );
    let empty = parse(["flwr-quic", "superlink", "--config="].map(OsString::from)).unwrap();
    assert_eq!(empty.file.summary(), None);
}

#[test]
fn only_whole_names_of_flags_are_explained() {
    let world = World::of("[superlink]\nssl-certfile = 'a'\n");
    let asked = world.parse("superlink", &[]).unwrap();
    assert_eq!(asked.file.origin("give `--ssl-certfile-x`"), None);
    let origin = asked.file.origin("give `--ssl-certfile` and more").unwrap();
    assert!(
        origin.ends_with("flwr.toml sets `ssl-certfile` in line 2"),
        "{origin}"
    );
}

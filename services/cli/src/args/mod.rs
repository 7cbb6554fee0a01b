//! The command line: what can be said, and what is wrong with what was said.
//!
//! Parsing behaves as the Python programs that this one stands in for: `--flag value` and `--flag=value` are the same,
//! an unambiguous beginning of a flag is the flag, of a repeated flag the last one counts, and a usage error prints the
//! usage and the problem on stderr and ends with status 2. [`config`] opens the configuration file; nothing else here
//! opens one.

use std::ffi::{OsStr, OsString};

use clap::{
    Command as ClapCommand, CommandFactory as _, FromArgMatches as _, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};

use config::{DAEMONS, FromFile};

use crate::memory::BYTES_MIN;

pub(crate) mod appio;
pub(crate) mod certs;
pub(crate) mod config;
pub(crate) mod doctor;
pub(crate) mod health;
pub(crate) mod keys;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod quic;
pub(crate) mod state;
pub(crate) mod status;
pub(crate) mod superexec;
pub(crate) mod superlink;
pub(crate) mod supernode;
pub(crate) mod trust;

/// What the program is to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make, check and show the certificates of a federation
    #[command(subcommand)]
    Certs(certs::Command),
    /// Find out why a federation does not work, and say what mends it
    Doctor(Box<doctor::DoctorOptions>),
    /// Ask a daemon whether it serves: status 0 if so, 1 and the reason if not
    Health(health::HealthOptions),
    /// Make the keys and secrets that SuperNodes and SuperExecs prove themselves with
    #[command(subcommand)]
    Keys(keys::Command),
    /// Check, back up, restore and compact what a SuperLink with --database remembers
    #[command(subcommand)]
    State(state::Command),
    /// Show what a running SuperLink is at: nodes, runs, rounds and transfers
    Status(Box<status::StatusOptions>),
    /// Start a Flower SuperExec
    #[command(name = "superexec")]
    SuperExec(Box<superexec::SuperExecOptions>),
    /// Start a Flower SuperLink
    #[command(name = "superlink")]
    SuperLink(Box<superlink::SuperLinkOptions>),
    /// Start a Flower SuperNode
    #[command(name = "supernode")]
    SuperNode(Box<supernode::SuperNodeOptions>),
}

/// Flower's long-lived processes in Rust, for unmodified Flower programs.
#[derive(Debug, Parser)]
#[command(
    name = "flwr-quic",
    version,
    propagate_version = true,
    args_override_self = true,
    infer_long_args = true,
    max_term_width = 100
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

/// What was asked for, and what a configuration file said to it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) command: Command,
    pub(crate) file: FromFile,
}

/// Reads the command line, the environment and the configuration file; the first item is the program's name.
///
/// # Errors
/// Also for `--help` and `--version`, which are answers that end the program.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Asked, Answer> {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut clap = command_line();
    let command = descend(clap.clone(), &args);
    let args = complete(&command, args);
    let file = FromFile::read(&clap, &command, &args).map_err(|why| Answer {
        text: format!("error: {why}\n"),
        is_error: true,
    })?;
    let args = file.insert_into(args);
    clap.try_get_matches_from_mut(args.iter().cloned())
        .and_then(|matches| CommandLine::from_arg_matches(&matches))
        .map_err(|error| Answer::new(&error, clap, &args).with_origin(&file))
        .map(|line| Asked {
            command: line.command,
            file,
        })
}

/// All commands; daemons can have their flags from a file.
fn command_line() -> ClapCommand {
    let clap = CommandLine::command();
    DAEMONS.into_iter().fold(clap, |clap, daemon| {
        clap.mut_subcommand(daemon, |daemon| daemon.arg(config::flag()))
    })
}

/// What is printed instead of doing something.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) text: String,
    /// A usage error: printed on stderr, status 2. Otherwise help or a version: stdout, status 0.
    pub(crate) is_error: bool,
}

impl Answer {
    fn new(error: &clap::Error, clap: ClapCommand, args: &[OsString]) -> Self {
        let is_error = error.use_stderr();
        let mut text = error.render().to_string();
        if is_error {
            let mut command = descend(clap, args);
            if let Some(matches) = ambiguous(error, &command) {
                text = matches;
            }
            if !text.contains("Usage:") {
                text = format!("{}\n\n{text}", command.render_usage());
            }
        }
        Self { text, is_error }
    }

    /// Says which of the flags in it come from the file.
    fn with_origin(mut self, file: &FromFile) -> Self {
        if self.is_error
            && let Some(origin) = file.origin(&self.text)
        {
            self.text = format!("{}\nnote: {origin}\n", self.text.trim_end());
        }
        self
    }
}

/// The subcommand that the arguments begin with, with its full name.
fn descend(mut command: ClapCommand, args: &[OsString]) -> ClapCommand {
    command.build();
    for arg in args.iter().skip(1) {
        let next = arg.to_str().and_then(|name| command.find_subcommand(name));
        let Some(next) = next.cloned() else { break };
        command = next;
    }
    command
}

/// Completes beginnings that stand for one flag of stock Flower, so that our own flags make none ambiguous.
fn complete(command: &ClapCommand, args: Vec<OsString>) -> Vec<OsString> {
    let flags: Vec<_> = command.get_arguments().collect();
    let completed = args.into_iter().map(|arg| {
        let given = arg.to_str().and_then(|text| text.strip_prefix("--"));
        let Some(given) = given else { return arg };
        let (start, value) = match given.split_once('=') {
            Some((start, value)) => (start, Some(value)),
            None => (given, None),
        };
        let fitting = |long: &&str| !start.is_empty() && long.starts_with(start);
        let mut stock = flags
            .iter()
            .filter(|flag| flag.get_help_heading() != Some(OURS))
            .filter_map(|flag| flag.get_long())
            .filter(fitting);
        let is_exact = flags.iter().any(|flag| flag.get_long() == Some(start));
        match (stock.next(), stock.next()) {
            (Some(long), None) if !is_exact => match value {
                Some(value) => format!("--{long}={value}").into(),
                None => format!("--{long}").into(),
            },
            _ => arg,
        }
    });
    completed.collect()
}

/// Says which flags a beginning could stand for; clap calls such a beginning unknown.
fn ambiguous(error: &clap::Error, command: &ClapCommand) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let start = given.split('=').next()?.strip_prefix("--")?;
    let fitting: Vec<String> = command
        .get_arguments()
        .filter_map(|arg| arg.get_long())
        .filter(|long| !start.is_empty() && long.starts_with(start))
        .map(|long| format!("--{long}"))
        .collect();
    (fitting.len() > 1).then(|| {
        format!(
            "error: ambiguous option: --{start} could match {}\n",
            fitting.join(", ")
        )
    })
}

/// An empty value counts as none, as in Flower.
fn given(flag: Option<&OsStr>) -> Option<&OsStr> {
    flag.filter(|value| !value.is_empty())
}

/// `64G` and the like, in powers of 1024.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err("must be a number, maybe followed by K, M, G or T".into()),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "must be a number, maybe followed by K, M, G or T".into())
}

fn memory_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes < BYTES_MIN => Err(format!("must be at least {}M", BYTES_MIN >> 20)),
        bytes => Ok(bytes),
    }
}

/// A heading for flags that stock programs do not have.
const OURS: &str = "Options that stock Flower does not have";

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn superlink(flags: &str) -> superlink::SuperLinkOptions {
        match parse(words(&format!("flwr-quic superlink {flags}"))) {
            Ok(Asked {
                command: Command::SuperLink(options),
                ..
            }) => *options,
            other => panic!("{flags}: {other:?}"),
        }
    }

    fn refusal(flags: &str) -> String {
        let answer = parse(words(&format!("flwr-quic superlink {flags}"))).expect_err(flags);
        assert!(answer.is_error, "{flags}");
        assert!(
            answer.text.contains("Usage: flwr-quic superlink"),
            "{flags}: {}",
            answer.text
        );
        answer.text
    }

    #[test]
    fn the_command_is_consistent() {
        command_line().debug_assert();
    }

    #[test]
    fn values_follow_a_blank_or_an_equals_sign() {
        for flags in [
            "--isolation process",
            "--isolation=process",
            "--iso=process",
            "--iso process",
        ] {
            assert_eq!(
                superlink(flags).isolation,
                superlink::Isolation::Process,
                "{flags}"
            );
        }
    }

    #[test]
    fn unambiguous_beginnings_are_flags() {
        let options =
            superlink("--insec --ssl-ca ca.crt --fleet-api-addr 127.0.0.1:1 --control 127.0.0.1:2");
        assert!(options.insecure);
        assert_eq!(options.ssl_ca_certfile.as_deref(), Some("ca.crt".as_ref()));
        assert_eq!(options.fleet_api_address.as_deref(), Some("127.0.0.1:1"));
        assert_eq!(options.control_api_address.as_deref(), Some("127.0.0.1:2"));
    }

    #[test]
    fn apps_are_served_outside_this_machine_only_if_somebody_starts_them_there() {
        let address = |flags| superlink(flags).serverappio_address().to_owned();
        assert_eq!(address(""), "127.0.0.1:9091");
        assert_eq!(address("--isolation process"), "0.0.0.0:9091");
        assert_eq!(address("--serverappio-api-address [::]:1"), "[::]:1");
    }

    #[test]
    fn rest_has_a_port_of_its_own() {
        let address = |flags| superlink(flags).fleet_address().to_owned();
        assert_eq!(address(""), "0.0.0.0:9092");
        assert_eq!(address("--fleet-api-type grpc-adapter"), "0.0.0.0:9092");
        assert_eq!(address("--fleet-api-type rest"), "0.0.0.0:9095");
    }

    #[test]
    fn an_exact_flag_is_not_ambiguous() {
        assert_eq!(
            superlink("--executor x").executor.as_deref(),
            Some("x".as_ref())
        );
    }

    #[test]
    fn flags_of_ours_make_no_beginning_ambiguous() {
        for flags in ["--con a:1", "--con=a:1", "--control-api-address a:1"] {
            assert_eq!(superlink(flags).control_address(), "a:1", "{flags}");
        }
        assert_eq!(
            superlink("--hold 3").hold_seconds,
            Some(std::time::Duration::from_secs(3))
        );
    }

    #[test]
    fn ambiguous_beginnings_name_the_candidates() {
        let text = refusal("--ssl 3");
        assert!(
            text.contains("ambiguous option: --ssl could match --ssl-certfile, --ssl-keyfile, --ssl-ca-certfile"),
            "{text}"
        );
    }

    #[test]
    fn of_a_repeated_flag_the_last_counts() {
        let options = superlink("--insecure --insecure --isolation process --isolation subprocess");
        assert_eq!(options.isolation, superlink::Isolation::Subprocess);
    }

    #[test]
    fn usage_errors_show_the_usage_and_the_problem() {
        for (flags, problem) in [
            ("--bogus", "--bogus"),
            ("positional", "positional"),
            ("--isolation docker", "docker"),
            ("--fleet-api-type http", "http"),
            ("--fleet-api-num-workers x", "x"),
            ("--control-api-address", "--control-api-address"),
            ("--insecure=yes", "yes"),
            ("--hold-seconds -1", "-1"),
            ("--hold-seconds nan", "nan"),
            ("--hold-seconds 1e300", "1e300"),
            ("--transport carrier-pigeon", "carrier-pigeon"),
            ("--transport=", "--transport"),
        ] {
            let text = refusal(flags);
            assert!(text.contains(problem), "{flags}: {text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("4k", 4096),
            ("1.5G", 0),
            ("64G", 64 << 30),
            ("2TiB", 2 << 40),
        ] {
            let expected = (bytes > 0 || text == "0").then_some(bytes);
            assert_eq!(size(text).ok(), expected, "{text}");
        }
        for bad in ["", "G", "-1", "1X", "99999999T"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(memory_size("32M"), Ok(32 << 20));
        assert_eq!(memory_size("1M"), Err("must be at least 32M".into()));
    }

    #[test]
    fn help_and_version_are_no_errors() {
        for (line, part) in [
            ("flwr-quic --help", "superlink"),
            ("flwr-quic -h", "certs"),
            ("flwr-quic superlink --help", "--health-server-address"),
            ("flwr-quic superlink -h", "--auth-list-public-keys"),
            ("flwr-quic superlink --version", env!("CARGO_PKG_VERSION")),
            ("flwr-quic --version", env!("CARGO_PKG_VERSION")),
            ("flwr-quic certs server --help", "--san"),
            ("flwr-quic health --help", "--root-certificates"),
            ("flwr-quic keys node --help", "--list"),
            ("flwr-quic keys join-secret --help", "--out"),
            ("flwr-quic superlink -h", "--appio-join-secret-file"),
            ("flwr-quic state backup --help", "--storage-dir"),
        ] {
            let answer = parse(words(line)).expect_err(line);
            assert!(!answer.is_error, "{line}");
            assert!(answer.text.contains(part), "{line}: {}", answer.text);
        }
    }
}

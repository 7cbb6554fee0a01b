//! The configuration file of a daemon (`--config`): TOML with a table for each command and a key for each flag.
//!
//! What the file says becomes arguments in front of those of the command line, for each flag that neither the command
//! line nor the environment gives. So there is one list of flags, and what holds between them holds for the file.

use std::{any::TypeId, ffi::OsString, fs, ops::Range, path::PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command as ClapCommand, parser::ValueSource};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::OURS;

/// The daemons: the commands that a file has tables for.
pub(super) const DAEMONS: [&str; 3] = ["superexec", "superlink", "supernode"];
/// What the file is named by in the environment. Not for children: they get their flags from who starts them.
pub(crate) const VARIABLE: &str = "FLWR_QUIC_CONFIG";

/// What a configuration file says that nobody has overruled.
#[derive(Debug, Default)]
pub(crate) struct FromFile {
    path: PathBuf,
    entries: Vec<Entry>,
}

#[derive(Debug, Eq, PartialEq)]
struct Entry {
    flag: String,
    line: usize,
    arguments: Vec<OsString>,
}

/// The flag that names the file.
pub(super) fn flag() -> Arg {
    Arg::new(ID)
        .long(ID)
        .value_name("FILE")
        .value_parser(clap::value_parser!(OsString))
        .env(VARIABLE)
        .help_heading(OURS)
        .help(
            "A TOML file with flags of this command in a table of its name, such as `transport = \"quic\"` in \
             [supernode]; the command line and the environment come before it",
        )
}

impl FromFile {
    /// Reads the file that `args` or the environment name for `daemon`, one of the subcommands of `clap`; without one,
    /// there are no entries.
    ///
    /// # Errors
    /// One sentence that names the file, and line and key where they are known.
    pub(super) fn read(
        clap: &ClapCommand,
        daemon: &ClapCommand,
        args: &[OsString],
    ) -> Result<Self, String> {
        let Some(given) = given(clap, daemon, args) else {
            return Ok(Self::default());
        };
        let path = given.get_one::<OsString>(ID).map(PathBuf::from);
        let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else {
            return Ok(Self::default());
        };
        let name = path.display();
        let text = fs::read_to_string(&path)
            .map_err(|error| format!("the configuration file {name} cannot be read: {error}"))?;
        let entries = entries(&text, daemon).map_err(|problem| {
            let place = problem.at.map(|at| format!(", line {}", line(&text, &at)));
            format!("{name}{}: {}", place.unwrap_or_default(), problem.what)
        })?;
        let is_overruled = |entry: &Entry| {
            let mut flags = daemon.get_arguments();
            let flag = flags.find(|flag| flag.get_long() == Some(&entry.flag));
            let source = flag.and_then(|flag| given.value_source(flag.get_id().as_str()));
            matches!(
                source,
                Some(ValueSource::CommandLine | ValueSource::EnvVariable)
            )
        };
        Ok(Self {
            path,
            entries: entries.into_iter().filter(|e| !is_overruled(e)).collect(),
        })
    }

    /// `args` with what the file says behind the name of the command.
    pub(super) fn insert_into(&self, mut args: Vec<OsString>) -> Vec<OsString> {
        let entries = self.entries.iter();
        let said = entries.flat_map(|entry| entry.arguments.iter().cloned());
        let behind = args.len().min(2);
        args.splice(behind..behind, said);
        args
    }

    /// What is in force of the file, for the log.
    pub(crate) fn summary(&self) -> Option<String> {
        (!self.path.as_os_str().is_empty()).then(|| {
            let flags: Vec<_> = self.entries.iter().map(|entry| &*entry.flag).collect();
            format!(
                "Configuration from {}: {}",
                self.path.display(),
                if flags.is_empty() {
                    "nothing".to_owned()
                } else {
                    flags.join(", ")
                }
            )
        })
    }

    /// Where the flags come from that a text names, if they are of this file.
    pub(crate) fn origin(&self, text: &str) -> Option<String> {
        let is_named = |flag: &str| {
            text.match_indices(&format!("--{flag}")).any(|(at, found)| {
                let rest = &text[at + found.len()..];
                !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-')
            })
        };
        let named = self.entries.iter().filter(|entry| is_named(&entry.flag));
        let places: Vec<_> = named
            .map(|Entry { flag, line, .. }| format!("`{flag}` in line {line}"))
            .collect();
        (!places.is_empty()).then(|| {
            let places = places.join(", ");
            format!("{} sets {places}", self.path.display())
        })
    }
}

/// What the command line and the environment give for the daemon, which may be too little without the file. Nothing
/// where they cannot be understood, which is somebody else's to say.
fn given(clap: &ClapCommand, daemon: &ClapCommand, args: &[OsString]) -> Option<ArgMatches> {
    let name = daemon.get_name();
    if !DAEMONS.contains(&name) {
        return None;
    }
    let lenient = |daemon: ClapCommand| daemon.mut_args(|arg| arg.required(false));
    let clap = clap.clone().mut_subcommand(name, lenient);
    let mut matches = clap.try_get_matches_from(args).ok()?;
    Some(matches.remove_subcommand()?.1)
}

/// What is wrong with a file, and where.
#[derive(Debug)]
struct Problem {
    what: String,
    at: Option<Range<usize>>,
}

/// The entries of the daemon's table, each for a flag that there is and of a type that it takes.
fn entries(text: &str, daemon: &ClapCommand) -> Result<Vec<Entry>, Problem> {
    let root = DeTable::parse(text).map_err(|error| Problem {
        what: format!("not TOML: {}", error.message().trim()),
        at: error.span(),
    })?;
    let mut entries = Vec::new();
    for (table, value) in root.get_ref() {
        let problem = |what| Problem {
            what,
            at: Some(table.span()),
        };
        let name = table.get_ref().as_ref();
        let DeValue::Table(keys) = value.get_ref() else {
            let table = daemon.get_name();
            return Err(problem(format!(
                "`{name}` is in no table: put it below a line with [{table}]"
            )));
        };
        if !DAEMONS.contains(&name) {
            let hint = nearest(name, DAEMONS).map_or_else(String::new, |nearest| {
                format!("; did you mean [{nearest}]?")
            });
            return Err(problem(format!(
                "there is no table [{name}], only [superexec], [superlink] and [supernode]{hint}"
            )));
        }
        if name == daemon.get_name() {
            for (key, value) in keys {
                let entry = entry(daemon, key.get_ref(), value).map_err(|what| Problem {
                    what: format!("`{}` in [{name}]: {what}", key.get_ref()),
                    at: Some(key.span()),
                })?;
                entries.push(Entry {
                    line: line(text, &key.span()),
                    ..entry
                });
            }
        }
    }
    Ok(entries)
}

fn entry(daemon: &ClapCommand, key: &str, value: &Spanned<DeValue<'_>>) -> Result<Entry, String> {
    let Some(flag) = flags(daemon).find(|flag| flag.get_long() == Some(key)) else {
        let known = flags(daemon).filter_map(Arg::get_long);
        let hint = nearest(key, known).map_or_else(
            || "`--help` lists the flags".to_owned(),
            |nearest| format!("did you mean `{nearest}`?"),
        );
        return Err(format!("there is no such flag; {hint}"));
    };
    let argument = |value: String| OsString::from(format!("--{key}={value}"));
    let arguments = match (
        value.get_ref(),
        flag.get_action(),
        flag.get_value_delimiter(),
    ) {
        (DeValue::Boolean(is_on), ArgAction::SetTrue, _) => {
            Vec::from_iter(is_on.then(|| OsString::from(format!("--{key}"))))
        }
        (_, ArgAction::SetTrue, _) => return Err("must be true or false".into()),
        (DeValue::Array(items), ArgAction::Append, delimiter) => {
            let items = items.iter().map(|item| word(flag, item.get_ref()));
            let items = items.collect::<Result<Vec<_>, _>>()?;
            match delimiter {
                _ if items.is_empty() => Vec::new(),
                Some(delimiter) => vec![argument(items.join(&delimiter.to_string()))],
                None => items.into_iter().map(argument).collect(),
            }
        }
        (value, ..) => vec![argument(word(flag, value)?)],
    };
    Ok(Entry {
        flag: key.to_owned(),
        line: 0,
        arguments,
    })
}

/// A value as it stands on a command line.
fn word(flag: &Arg, value: &DeValue<'_>) -> Result<String, String> {
    let parser = flag.get_value_parser().type_id();
    let is_text = [
        TypeId::of::<String>(),
        TypeId::of::<OsString>(),
        TypeId::of::<PathBuf>(),
    ];
    let is_text = is_text.iter().any(|text| parser == *text);
    match value {
        DeValue::String(text) => Ok(text.clone().into_owned()),
        DeValue::Integer(number) if !is_text => {
            i64::from_str_radix(number.as_str(), number.radix())
                .map(|number| number.to_string())
                .map_err(|error| error.to_string())
        }
        DeValue::Float(number) if !is_text => Ok(number.as_str().to_owned()),
        _ if is_text => Err("must be a string in quotes".into()),
        _ => Err("must be a string or a number".into()),
    }
}

/// The flags that a file can give.
fn flags(daemon: &ClapCommand) -> impl Iterator<Item = &Arg> {
    daemon.get_arguments().filter(|flag| {
        let action = flag.get_action();
        flag.get_id() != ID
            && matches!(
                action,
                ArgAction::Set | ArgAction::SetTrue | ArgAction::Append
            )
    })
}

/// The known name that is most like one, if any is much like it.
fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |known: &&str| strsim::jaro_winkler(name, known);
    let alike = known.into_iter().filter(|known| likeness(known) > ALIKE);
    alike.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

/// Counted from 1.
fn line(text: &str, at: &Range<usize>) -> usize {
    let before = &text.as_bytes()[..at.start.min(text.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

const ID: &str = "config";
/// Of 1; unrelated words have about half.
const ALIKE: f64 = 0.7;

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;

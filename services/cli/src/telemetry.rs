//! Log lines on stderr and in a file: one event a line, for people or as JSON.
//!
//! What is logged is decided by `FLWR_LOG_LEVEL`: a level by the name that Flower gives it, or directives such as
//! `info,flwr_superlink=debug`. By default our own crates log from INFO, dependencies from WARN. Times are UTC.

use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
    panic,
    process::ExitCode,
    sync::Mutex,
    thread,
};

use tracing::{Level, error, warn};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::{MakeWriter, format::JsonFields},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::{
    args::log::{LogFormat, LogOptions},
    exit::Exit,
    log_file::{LogFile, announce},
    log_line::{Human, HumanFields},
};

/// Starts logging for the whole process; a panic from now on is a log line.
///
/// # Errors
/// When it was started before.
pub(crate) fn start(options: &LogOptions) -> Result<(), Exit> {
    let asked = std::env::var(LEVEL_VARIABLE).unwrap_or_default();
    let is_understood = filter(&asked).is_some();
    let coloured = io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let on_stderr = lines(io::stderr, options.format, coloured, &asked);
    let file = options
        .file()
        .map(|(path, bounds)| (LogFile::open(path.clone(), bounds), path));
    let (in_file, told) = match file {
        Some(((file, news), path)) => {
            let in_file = lines(Mutex::new(file), options.format, false, &asked);
            (Some(in_file), Some((news, path)))
        }
        None => (None, None),
    };
    tracing_subscriber::registry()
        .with(in_file.into_iter().chain([on_stderr]).collect::<Vec<_>>())
        .try_init()
        .map_err(|error| Exit::because(&error))?;
    panic::set_hook(Box::new(|panic| error!(%panic, "Internal error")));
    if !is_understood {
        warn!("{LEVEL_VARIABLE} is set to {asked:?}, which is no level: logging from INFO");
    }
    if let Some((news, path)) = told {
        let thread = thread::Builder::new().name("log-file".into());
        let announcing = thread.spawn(move || announce(&path, &news));
        announcing.map_err(|error| Exit::because(&error))?;
    }
    Ok(())
}

/// What makes lines of events and writes them.
fn lines<W>(
    writer: W,
    format: LogFormat,
    coloured: bool,
    asked: &str,
) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = filter(asked).unwrap_or_else(default_filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .log_internal_errors(false);
    match format {
        LogFormat::Human => lines
            .with_ansi(coloured)
            .fmt_fields(HumanFields)
            .event_format(Human)
            .with_filter(filter)
            .boxed(),
        LogFormat::Json => lines
            .fmt_fields(JsonFields::new())
            .event_format(
                tracing_subscriber::fmt::format()
                    .json()
                    .flatten_event(true)
                    .with_span_list(false),
            )
            .with_filter(filter)
            .boxed(),
    }
}

/// Says why the program ends, whatever is logged otherwise, and gives its status.
pub(crate) fn say_why(exit: &Exit) -> ExitCode {
    if tracing::enabled!(target: EXIT_TARGET, Level::ERROR) {
        error!(target: EXIT_TARGET, "{exit}");
    } else {
        let _closed = writeln!(io::stderr(), "{exit}");
    }
    exit.status()
}

/// Reads the value of `FLWR_LOG_LEVEL`; nothing if it cannot be understood.
fn filter(asked: &str) -> Option<EnvFilter> {
    let asked = asked.trim();
    if asked.is_empty() {
        return Some(default_filter());
    }
    if let Some(level) = flower_level(asked) {
        return EnvFilter::try_new(format!("{},flwr={level}", level.max_of_dependencies())).ok();
    }
    // A word without `=` that is no level would be taken for a module, and everything else would be silent.
    let is_sensible = asked.split(',').all(|directive| {
        directive.contains('=')
            || directive
                .trim()
                .parse::<tracing::level_filters::LevelFilter>()
                .is_ok()
    });
    is_sensible
        .then(|| EnvFilter::try_new(asked).ok())
        .flatten()
}

fn default_filter() -> EnvFilter {
    EnvFilter::new("warn,flwr=info")
}

/// A level of Python's logging, as far as it makes a difference here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum FlowerLevel {
    Debug,
    Error,
    Info,
    Warning,
}

impl FlowerLevel {
    fn max_of_dependencies(self) -> Self {
        if self == Self::Error {
            Self::Error
        } else {
            Self::Warning
        }
    }
}

impl fmt::Display for FlowerLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debug => "debug",
            Self::Error => "error",
            Self::Info => "info",
            Self::Warning => "warn",
        })
    }
}

fn flower_level(name: &str) -> Option<FlowerLevel> {
    Some(match name.to_ascii_uppercase().as_str() {
        "NOTSET" | "DEBUG" => FlowerLevel::Debug,
        "INFO" => FlowerLevel::Info,
        "WARN" | "WARNING" => FlowerLevel::Warning,
        // What ends the program is always said.
        "ERROR" | "CRITICAL" | "FATAL" => FlowerLevel::Error,
        _ => return None,
    })
}

/// The target of the line that says why the program ends.
pub(crate) const EXIT_TARGET: &str = "flwr_quic::exit";
const LEVEL_VARIABLE: &str = "FLWR_LOG_LEVEL";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_flowers_names() {
        for (asked, expected) in [
            ("", "flwr=info,warn"),
            ("DEBUG", "flwr=debug,warn"),
            ("info", "flwr=info,warn"),
            ("Warning", "flwr=warn,warn"),
            (" ERROR ", "flwr=error,error"),
            ("critical", "flwr=error,error"),
            ("info,h2=debug", "h2=debug,info"),
            ("flwr_superlink=trace", "flwr_superlink=trace"),
        ] {
            assert_eq!(
                filter(asked).map(|filter| filter.to_string()).as_deref(),
                Some(expected),
                "{asked}"
            );
        }
        for asked in ["LOUD", "info,loud", "flwr=loud"] {
            assert!(filter(asked).is_none(), "{asked}");
        }
    }
}

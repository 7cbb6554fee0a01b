//! Flags of logs, which all daemons have.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{OURS, given, size};
use crate::log_file::Bounds;

/// Where log lines go, and how they look.
#[derive(Args, Clone, Debug)]
pub(crate) struct LogOptions {
    /// How log lines are written
    #[arg(long = "log-format", value_enum, default_value_t = LogFormat::Human, help_heading = OURS)]
    pub(crate) format: LogFormat,

    /// A file that log lines are written to as well as to stderr
    #[arg(long = "log-file", value_name = "FILE", help_heading = OURS)]
    file: Option<OsString>,

    /// How large that file may become before a new one is begun: a number of bytes, or one with K, M, G or T
    #[arg(long = "log-rotate-size", value_name = "SIZE", value_parser = size, default_value = "64M", help_heading = OURS)]
    rotate_size: u64,

    /// How many former log files are kept, as FILE.1 (the latest), FILE.2 and so on
    #[arg(long = "log-keep", value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(..=1000),
          help_heading = OURS)]
    keep: u32,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line a person reads
    #[default]
    Human,
    /// One JSON object a line
    Json,
}

impl LogOptions {
    /// The log file, if there is to be one.
    pub(crate) fn file(&self) -> Option<(PathBuf, Bounds)> {
        let file = given(self.file.as_deref())?;
        let bounds = Bounds {
            bytes_max: self.rotate_size,
            keep: self.keep,
        };
        Some((PathBuf::from(file), bounds))
    }
}

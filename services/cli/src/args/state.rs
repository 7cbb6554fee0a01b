//! `flwr-quic state`: the flags.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};

use super::given;

/// What to do with the state of a SuperLink.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check that all of it is as it was written; the SuperLink may run. Status 1 if something is wrong
    Check(Place),
    /// Give back disk space that it does not need; the SuperLink must not run
    Compact(Place),
    /// Copy it, as of one moment; the SuperLink may run
    Backup(Backup),
    /// Make it anew from a backup, where there is none
    Restore(Restore),
}

#[derive(Args, Debug)]
pub(crate) struct Backup {
    /// The directory of the backup, which is made; if it is there, it must be empty
    #[arg(value_name = "TARGET_DIR")]
    pub(crate) target: PathBuf,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// The directory of a backup, which stays as it is
    #[arg(value_name = "BACKUP_DIR")]
    pub(crate) backup: PathBuf,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Where the state is, as the SuperLink was told.
#[derive(Args, Debug)]
pub(crate) struct Place {
    /// The SQLite file, as given to `flwr-quic superlink`
    #[arg(long, value_name = "FILE")]
    pub(crate) database: PathBuf,
    /// The directory of objects and FABs, as given to `flwr-quic superlink` [default: superlink/ffs in Flower's home
    /// directory, which is $FLWR_HOME, or $XDG_DATA_HOME/.flwr, or $HOME/.flwr]
    #[arg(long, value_name = "DIR")]
    storage_dir: Option<OsString>,
}

impl Place {
    /// The directory, if it was said.
    pub(crate) fn storage_dir(&self) -> Option<&Path> {
        given(self.storage_dir.as_deref()).map(Path::new)
    }
}

//! Flower's home directory.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::exit::Exit;

/// Where a SuperLink stores FABs unless it is told.
///
/// # Errors
/// When the environment does not tell where the home directory is.
pub(crate) fn default_storage_dir() -> Result<PathBuf, Exit> {
    home(|name| std::env::var_os(name))
        .map(|home| home.join("superlink").join("ffs"))
        .ok_or_else(|| {
            Exit::Problem(
                "There is no place to store FABs: set HOME or FLWR_HOME, or give --storage-dir."
                    .into(),
            )
        })
}

/// Flower's home directory: `given` if it is there, or what the environment tells.
///
/// # Errors
/// When the environment does not tell.
pub(crate) fn flower(given: Option<&Path>) -> Result<PathBuf, Exit> {
    given
        .filter(|given| given.is_dir())
        .map(Path::to_owned)
        .or_else(|| home(|name| std::env::var_os(name)))
        .ok_or_else(|| {
            Exit::Problem(
                "Flower has no home directory: set HOME or FLWR_HOME, or give an existing directory with --flwr-dir."
                    .into(),
            )
        })
}

fn home(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    let dot_flwr = |parent: OsString| Path::new(&parent).join(".flwr");
    set("FLWR_HOME")
        .map(PathBuf::from)
        .or_else(|| set("XDG_DATA_HOME").map(dot_flwr))
        .or_else(|| set("HOME").map(dot_flwr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_variable_that_is_set_counts() {
        let check = |variables: &[(&str, &str)], expected: Option<&str>| {
            let found = home(|name| {
                let (_, value) = variables.iter().find(|(key, _)| *key == name)?;
                Some(value.into())
            });
            assert_eq!(found.as_deref(), expected.map(Path::new), "{variables:?}");
        };
        check(
            &[("FLWR_HOME", "/f"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")],
            Some("/f"),
        );
        check(&[("XDG_DATA_HOME", "/x"), ("HOME", "/h")], Some("/x/.flwr"));
        check(&[("FLWR_HOME", ""), ("HOME", "/h")], Some("/h/.flwr"));
        check(&[], None);
    }
}

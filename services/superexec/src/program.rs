//! The stock program of an app, and the line that launches it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use flwr_api::Token;

use crate::config::Kind;

/// A program that was found.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    file: PathBuf,
    kind: Kind,
    flwr_dir: PathBuf,
}

/// The program of an app is in none of the directories it was looked for in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{program} is not on PATH: install it with `pip install flwr==1.22.0` (and activate that environment)"
)]
pub struct NotInstalled {
    /// The program.
    pub program: &'static str,
}

impl Program {
    /// Finds the program of `kind` in `path`.
    pub(crate) fn find(kind: Kind, path: &OsStr, flwr_dir: PathBuf) -> Result<Self, NotInstalled> {
        Ok(Self {
            file: find_program(kind, path)?,
            kind,
            flwr_dir,
        })
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The arguments, in the order of Flower 1.22
    /// (`flwr/supercore/superexec/plugin/base_exec_plugin.py`). The app ends itself when this
    /// process is gone.
    pub(crate) fn arguments(&self, address: &str, token: &Token) -> Vec<OsString> {
        let own_pid = std::process::id().to_string();
        let texts = [
            "--insecure",
            self.kind.address_flag(),
            address,
            "--token",
            token.expose(),
            "--parent-pid",
            &own_pid,
            "--flwr-dir",
        ];
        let mut arguments: Vec<_> = texts.map(OsString::from).into();
        arguments.push(self.flwr_dir.clone().into_os_string());
        arguments
    }
}

/// The program of `kind` in the directories of `path`.
///
/// # Errors
/// When it is in none of them.
pub fn find_program(kind: Kind, path: &OsStr) -> Result<PathBuf, NotInstalled> {
    let program = kind.program();
    env::split_paths(path)
        .map(|directory| directory.join(program))
        .find(|file| is_executable(file))
        .ok_or(NotInstalled { program })
}

fn is_executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder with a file of this mode for each program.
    fn folder(mode: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for kind in [Kind::ClientApp, Kind::ServerApp, Kind::Simulation] {
            let file = folder.path().join(kind.program());
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        }
        folder
    }

    #[test]
    fn launch_lines_are_flowers_122() {
        let folder = folder(0o755);
        let token = Token::from_random(&[7; 128]);
        for (kind, flag) in [
            (Kind::ClientApp, "--clientappio-api-address"),
            (Kind::ServerApp, "--serverappio-api-address"),
            (Kind::Simulation, "--simulationio-api-address"),
        ] {
            let program =
                Program::find(kind, folder.path().as_os_str(), "/home/me/.flwr".into()).unwrap();
            assert_eq!(program.file(), folder.path().join(kind.program()));
            let line = program
                .arguments("127.0.0.1:9094", &token)
                .join(OsStr::new(" "));
            let pid = std::process::id();
            let expected = format!(
                "--insecure {flag} 127.0.0.1:9094 --token {} --parent-pid {pid} --flwr-dir /home/me/.flwr",
                "07".repeat(128)
            );
            assert_eq!(line, OsString::from(expected));
        }
    }

    #[test]
    fn a_missing_program_says_what_to_install() {
        let (plain, empty) = (folder(0o644), tempfile::tempdir().unwrap());
        let path = env::join_paths([plain.path(), empty.path()]).unwrap();
        let missing = Program::find(Kind::ServerApp, &path, "".into()).unwrap_err();
        let text = missing.to_string();
        assert!(text.contains("flwr-serverapp is not on PATH"), "{text}");
        assert!(text.contains("pip install flwr==1.22.0"), "{text}");
    }
}

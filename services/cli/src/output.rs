//! What commands that end by themselves say: results on stdout, problems on stderr.

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use crate::exit::Exit;

/// Prints what a command has to say, and makes its status of it.
pub(crate) fn finish(outcome: Result<String, Exit>) -> ExitCode {
    match outcome {
        Ok(text) if say(&text) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(exit) => {
            let _closed = writeln!(io::stderr(), "error: {exit}");
            exit.status()
        }
    }
}

/// Prints something; false if that does not work.
pub(crate) fn say(text: &str) -> bool {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => true,
        // A reader that has seen enough, as in `| head`.
        Err(error) => error.kind() == io::ErrorKind::BrokenPipe,
    }
}

/// A path as it is typed into a shell.
pub(crate) fn shell(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_alphanumeric() || "/._-+:@%,=".contains(c));
    if is_plain {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_when_a_shell_would_split_them() {
        for (path, typed) in [
            ("certificates/ca.crt", "certificates/ca.crt"),
            ("my keys/node", "'my keys/node'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
        ] {
            assert_eq!(shell(Path::new(path)), typed);
        }
    }
}

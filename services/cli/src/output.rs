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
        Ok(text) if say(&text) != Said::Failed => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(exit) => {
            let _closed = writeln!(io::stderr(), "error: {exit}");
            exit.status()
        }
    }
}

/// What became of something that was printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Said {
    Printed,
    /// The reader has seen enough, as in `| head`.
    Unwanted,
    /// It is lost.
    Failed,
}

/// Prints something.
pub(crate) fn say(text: &str) -> Said {
    say_to(&mut io::stdout(), text)
}

fn say_to(out: &mut impl io::Write, text: &str) -> Said {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Said::Printed,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Said::Unwanted,
        Err(error) => {
            let _closed = writeln!(io::stderr(), "error: stdout cannot be written: {error}");
            Said::Failed
        }
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
    use std::fs::OpenOptions;

    use super::*;

    #[test]
    fn who_reads_no_more_is_told_from_a_disk_that_is_full() {
        let (reader, mut writer) = io::pipe().unwrap();
        assert_eq!(say_to(&mut writer, "heard\n"), Said::Printed);
        drop(reader);
        assert_eq!(say_to(&mut writer, "unheard\n"), Said::Unwanted);
        let mut full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_eq!(say_to(&mut full, "lost\n"), Said::Failed);
    }

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

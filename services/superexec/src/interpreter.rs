//! Which Python runs a console script.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// A Python interpreter as a script names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interpreter {
    pub(crate) program: PathBuf,
    /// What stands between the interpreter and the script.
    pub(crate) argument: Option<OsString>,
}

impl Interpreter {
    /// The interpreter in the first lines of `script`; nothing if it is not a Python script.
    pub(crate) fn of(script: &Path) -> io::Result<Option<Self>> {
        let mut head = Vec::new();
        File::open(script)?
            .take(HEAD_BYTES)
            .read_to_end(&mut head)?;
        Ok(Self::parse(&head))
    }

    fn parse(head: &[u8]) -> Option<Self> {
        let mut lines = head.split(|byte| *byte == b'\n');
        let line = lines.next()?.strip_prefix(b"#!")?.trim_ascii();
        let (program, argument) = split_word(line);
        let name = program.rsplit(|byte| *byte == b'/').next()?;
        let interpreter = match name {
            b"sh" => Self {
                program: handed_on(lines.next()?)?,
                argument: None,
            },
            _ => Self {
                program: path(program),
                argument: (!argument.is_empty()).then(|| OsString::from_vec(argument.to_vec())),
            },
        };
        let is_python = match name {
            b"env" => argument.starts_with(b"python"),
            b"sh" => true,
            _ => name.starts_with(b"python"),
        };
        is_python.then_some(interpreter)
    }
}

/// The interpreter in the second line of a script for `sh`, which is how pip and uv write one whose
/// path does not fit behind `#!`.
fn handed_on(line: &[u8]) -> Option<PathBuf> {
    let rest = line.strip_prefix(b"'''exec' ")?;
    let program = match rest.strip_prefix(b"\"") {
        Some(quoted) => quoted.split(|byte| *byte == b'"').next()?,
        None => split_word(rest).0,
    };
    let is_plain = program.starts_with(b"/") && !program.contains(&b'$');
    is_plain.then(|| path(program))
}

fn split_word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(u8::is_ascii_whitespace);
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    (word, rest.trim_ascii())
}

fn path(bytes: &[u8]) -> PathBuf {
    OsString::from_vec(bytes.to_vec()).into()
}

/// Enough for two lines with a path each.
const HEAD_BYTES: u64 = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(script: &str, expected: Option<(&str, Option<&str>)>) {
        let expected = expected.map(|(program, argument)| Interpreter {
            program: program.into(),
            argument: argument.map(OsString::from),
        });
        assert_eq!(Interpreter::parse(script.as_bytes()), expected, "{script}");
    }

    #[test]
    fn the_interpreter_is_read_as_the_system_reads_it() {
        check(
            "#!/venv/bin/python\nimport sys",
            Some(("/venv/bin/python", None)),
        );
        check(
            "#! /venv/bin/python3.11 ",
            Some(("/venv/bin/python3.11", None)),
        );
        check(
            "#!/usr/bin/python3 -sP\nimport sys",
            Some(("/usr/bin/python3", Some("-sP"))),
        );
        check(
            "#!/usr/bin/env python3\n",
            Some(("/usr/bin/env", Some("python3"))),
        );
    }

    #[test]
    fn paths_that_do_not_fit_are_in_the_second_line() {
        check(
            "#!/bin/sh\n'''exec' \"/my venv/bin/python\" \"$0\" \"$@\"\n' '''\nimport sys",
            Some(("/my venv/bin/python", None)),
        );
        check(
            "#!/bin/sh\n'''exec' /long/bin/python3 \"$0\" \"$@\"\n' '''",
            Some(("/long/bin/python3", None)),
        );
        check(
            "#!/bin/sh\n'''exec' \"$(dirname -- \"$0\")\"/'python' \"$0\" \"$@\"\n",
            None,
        );
    }

    #[test]
    fn other_programs_have_none() {
        for script in [
            "",
            "#!",
            "\x7fELF",
            "#!/bin/sh\nexit 1",
            "#!/bin/bash\n",
            "#!/usr/bin/env sh",
        ] {
            check(script, None);
        }
    }
}

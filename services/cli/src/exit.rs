//! How the program ends: Flower's exit codes, and problems that have none.
//!
//! Flower's codes are printed, not returned: the operating system sees 0 for codes 0 to 99 and 1 for all others, and
//! 2 for a usage error. The codes and the form of their text are a public interface.

use std::{error::Error, fmt, process::ExitCode};

use crate::args::config::FromFile;

/// Why the program ends other than well.
#[derive(Debug)]
pub(crate) enum Exit {
    /// Something Flower has a code for, and the circumstances.
    Code(Code, String),
    /// Anything else: one sentence that says what to do.
    Problem(String),
}

impl Exit {
    /// A problem that an error's own text explains; its causes follow in brackets.
    pub(crate) fn because(error: &dyn Error) -> Self {
        Self::Problem(sentence(error))
    }

    /// The same, and which of the flags that it names come from a configuration file.
    pub(crate) fn with_origin(mut self, file: &FromFile) -> Self {
        let (Self::Code(_, said) | Self::Problem(said)) = &mut self;
        if let Some(origin) = file.origin(said) {
            *said = format!("{said} ({origin}.)");
        }
        self
    }

    /// What the operating system is told.
    pub(crate) fn status(&self) -> ExitCode {
        match self {
            Self::Code(code, _) if code.is_success() => ExitCode::SUCCESS,
            Self::Code(..) | Self::Problem(_) => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code, context) => write!(
                f,
                "Exit Code: {}\n{context}\n{}\n\nFor more information, visit: <{}>",
                code.0,
                code.explanation(),
                code.url()
            ),
            Self::Problem(sentence) => f.write_str(sentence),
        }
    }
}

/// An exit code of Flower.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Code(u16);

impl Code {
    /// A part of the SuperLink that serves peers ended by itself.
    pub(crate) const SERVICE_CRASHED: Self = Self(100);
    /// Flags that Flower removed, or that contradict each other.
    pub(crate) const INVALID_ARGUMENTS: Self = Self(104);
    /// REST to an address without `http://` or `https://`.
    pub(crate) const REST_ADDRESS_INVALID: Self = Self(300);
    /// A private key file without a public one, or the other way round.
    pub(crate) const NODE_KEYS_REQUIRED: Self = Self(301);
    /// A key file that is none.
    pub(crate) const NODE_KEYS_INVALID: Self = Self(302);
    /// An address that is not `host:port`.
    pub(crate) const ADDRESS_INVALID: Self = Self(600);

    /// Whether the operating system is told that all went well.
    pub(crate) const fn is_success(self) -> bool {
        self.0 < 100
    }

    fn explanation(self) -> &'static str {
        match self {
            Self::SERVICE_CRASHED => "A service that the SuperLink cannot work without has ended.",
            Self::INVALID_ARGUMENTS => {
                "The SuperLink cannot work with these arguments; `--help` lists those it takes."
            }
            Self::REST_ADDRESS_INVALID => {
                "With `--rest`, the address of the SuperLink begins with `http://` or `https://`."
            }
            Self::NODE_KEYS_REQUIRED => {
                "Node authentication needs both files: `--auth-supernode-private-key` and \
                 `--auth-supernode-public-key`. `flwr-quic keys node --out FILE` makes them."
            }
            Self::NODE_KEYS_INVALID => {
                "The keys are P-256, P-384, P-521 or Ed25519 keys in OpenSSH or PKCS#8 format, the private one without a passphrase. \
                 `flwr-quic keys node --out FILE` makes such a pair."
            }
            Self::ADDRESS_INVALID => {
                "An address is `host:port`, where host is a name, an IPv4 address or an IPv6 address in square \
                 brackets, and port is a number from 1 to 65535."
            }
            _ => "",
        }
    }

    fn url(self) -> String {
        format!(
            "https://flower.ai/docs/framework/v{FLOWER_RELEASE}/en/ref-exit-codes/{}.html",
            self.0
        )
    }
}

/// An error's text with its causes in brackets.
pub(crate) fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    if !causes.is_empty() {
        text = format!("{text} ({})", causes.join(": "));
    }
    text
}

/// The release whose manual explains the codes, and whose programs the SuperLink launches.
pub(crate) const FLOWER_RELEASE: &str = "1.22.0";

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_code_is_printed_with_context_explanation_and_page() {
        let exit = Exit::Code(Code::INVALID_ARGUMENTS, "The context.".into());
        let text = exit.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "Exit Code: 104");
        assert_eq!(lines[1], "The context.");
        assert!(!lines[2].is_empty());
        assert_eq!(
            lines[4],
            "For more information, visit: <https://flower.ai/docs/framework/v1.22.0/en/ref-exit-codes/104.html>"
        );
        assert_eq!(exit.status(), ExitCode::FAILURE);
    }

    #[test]
    fn every_code_is_explained() {
        for code in [
            Code::SERVICE_CRASHED,
            Code::INVALID_ARGUMENTS,
            Code::REST_ADDRESS_INVALID,
            Code::NODE_KEYS_REQUIRED,
            Code::NODE_KEYS_INVALID,
            Code::ADDRESS_INVALID,
        ] {
            assert!(!code.explanation().is_empty(), "{code:?}");
            assert!(!code.is_success(), "{code:?}");
        }
        assert!(Code(99).is_success());
    }

    #[test]
    fn causes_are_named() {
        let error = io::Error::other(io::Error::other("inner"));
        assert_eq!(sentence(&error), "inner");
    }
}

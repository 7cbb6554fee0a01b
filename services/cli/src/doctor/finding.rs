//! What a check has found, for people and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// One thing that was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Finding {
    /// The check, such as `chain`.
    pub(crate) check: Check,
    /// What was looked at: a file, an address.
    pub(crate) subject: String,
    pub(crate) level: Level,
    /// What is so, or what is wrong.
    pub(crate) says: String,
    /// What mends it: a command, or a sentence.
    pub(crate) remedy: Option<String>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Level {
    Ok,
    /// Could not be looked at.
    Skipped,
    /// Works, but will not for long or not well.
    Warning,
    /// Does not work.
    Problem,
}

/// The checks there are, in the order in which they are made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Check {
    Files,
    Chain,
    Key,
    Names,
    Expiry,
    Permissions,
    Ports,
    UdpBuffers,
    Dns,
    Tcp,
    Tls,
    Quic,
    PathMtu,
    Service,
    Clock,
    Health,
}

impl Check {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Chain => "chain",
            Self::Key => "key",
            Self::Names => "names",
            Self::Expiry => "expiry",
            Self::Permissions => "permissions",
            Self::Ports => "ports",
            Self::UdpBuffers => "udp-buffers",
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Quic => "quic",
            Self::PathMtu => "path-mtu",
            Self::Service => "service",
            Self::Clock => "clock",
            Self::Health => "health",
        }
    }

    pub(crate) fn ok(self, subject: impl Into<String>, says: impl Into<String>) -> Finding {
        self.finding(subject, Level::Ok, says)
    }

    pub(crate) fn skipped(self, subject: impl Into<String>, says: impl Into<String>) -> Finding {
        self.finding(subject, Level::Skipped, says)
    }

    pub(crate) fn warning(self, subject: impl Into<String>, says: impl Into<String>) -> Finding {
        self.finding(subject, Level::Warning, says)
    }

    pub(crate) fn problem(self, subject: impl Into<String>, says: impl Into<String>) -> Finding {
        self.finding(subject, Level::Problem, says)
    }

    fn finding(self, subject: impl Into<String>, level: Level, says: impl Into<String>) -> Finding {
        Finding {
            check: self,
            subject: subject.into(),
            level,
            says: says.into(),
            remedy: None,
        }
    }
}

impl Finding {
    /// The same, and what mends it.
    pub(crate) fn mended_by(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// Whether nothing is wrong.
pub(crate) fn is_well(findings: &[Finding]) -> bool {
    findings.iter().all(|one| one.level < Level::Problem)
}

/// One line each, with what mends it below, and a sum.
pub(crate) fn for_people(findings: &[Finding]) -> String {
    let mut text = String::new();
    for one in findings {
        // Writing to a String cannot fail.
        let _ok = writeln!(
            text,
            "{:<8} {:<12} {}: {}",
            one.level.name(),
            one.check.name(),
            one.subject,
            one.says
        );
        if let Some(remedy) = &one.remedy {
            let _ok = writeln!(text, "{:21} -> {remedy}", "");
        }
    }
    let count = |level| findings.iter().filter(|one| one.level == level).count();
    let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
    let _ok = writeln!(
        text,
        "\n{} looked at, {}, {}",
        findings.len(),
        counted(problems, "problem"),
        counted(warnings, "warning")
    );
    text
}

/// One object with all of them.
pub(crate) fn as_json(findings: &[Finding]) -> String {
    let list: Vec<Value> = findings
        .iter()
        .map(|one| {
            json!({
                "check": one.check.name(),
                "subject": one.subject,
                "level": one.level.name(),
                "says": one.says,
                "remedy": one.remedy,
            })
        })
        .collect();
    let report = json!({ "ok": is_well(findings), "findings": list });
    format!("{report:#}\n")
}

fn counted(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_problems_count_as_unwell() {
        let fine = [
            Check::Dns.ok("a", "b"),
            Check::Quic.warning("a", "b"),
            Check::Clock.skipped("a", "b"),
        ];
        assert!(is_well(&fine) && is_well(&[]));
        assert!(!is_well(&[Check::Tcp.problem("a", "b")]));
    }

    #[test]
    fn a_report_says_what_mends_it() {
        let findings = [Check::Key
            .problem("server.key", "does not fit")
            .mended_by("make it")];
        let text = for_people(&findings);
        assert!(
            text.contains("problem  key          server.key: does not fit\n"),
            "{text}"
        );
        assert!(text.contains("-> make it\n"), "{text}");
        assert!(
            text.ends_with("\n1 looked at, 1 problem, 0 warnings\n"),
            "{text}"
        );
        let value: Value = serde_json::from_str(&as_json(&findings)).unwrap();
        assert_eq!(value["ok"], false);
        assert_eq!(value["findings"][0]["remedy"], "make it");
    }
}

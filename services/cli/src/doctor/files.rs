//! The files of certificates and keys: whether they are there, belong together and last.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use flwr_certs::{
    CertError, CertInfo, FileError, Role, client_certificates, format_iso, server_certificates,
    show, usual_names, verify,
};

use super::{
    finding::{Check, Finding},
    permissions::{readable, secrecy, to_read},
};
use crate::{exit::sentence, output::shell};

/// What is expected of the files.
#[derive(Clone, Debug)]
pub(super) struct Expected<'a> {
    pub(super) dir: &'a Path,
    /// What the server's certificate has to be valid for.
    pub(super) hosts: &'a [String],
    /// Who has to be able to read them.
    pub(super) uid: Option<u32>,
    /// Whether a key that others can read is a problem.
    pub(super) strict: bool,
    /// Unix seconds.
    pub(super) now_unix: f64,
}

/// All that is below the directory, in either layout.
pub(super) fn check(expected: &Expected<'_>) -> Vec<Finding> {
    let dir = expected.dir;
    let Some(ca) = ca_in(dir) else {
        let remedy = format!("flwr-quic certs ca --dir {}", shell(dir));
        return vec![
            Check::Files
                .problem(dir.display().to_string(), "there is no ca.crt")
                .mended_by(remedy),
        ];
    };
    let mut findings = certificate(expected, &ca, Kind::Ca, &ca);
    let servers = server_certificates(dir);
    if servers.is_empty() {
        findings.push(
            Check::Files
                .problem(
                    dir.display().to_string(),
                    "there is no certificate of a server",
                )
                .mended_by(format!("flwr-quic certs server --dir {}", shell(dir))),
        );
    }
    for path in servers {
        findings.extend(certificate(expected, &path, Kind::Server, &ca));
    }
    for path in client_certificates(dir) {
        findings.extend(certificate(expected, &path, Kind::Client, &ca));
    }
    findings
}

/// The CA below a directory, in either layout.
pub(super) fn ca_in(dir: &Path) -> Option<PathBuf> {
    [dir.join("ca/ca.crt"), dir.join("ca.crt")]
        .into_iter()
        .find(|path| path.exists())
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Ca,
    Server,
    Client,
}

/// One certificate with its key.
fn certificate(expected: &Expected<'_>, path: &Path, kind: Kind, ca: &Path) -> Vec<Finding> {
    let subject = path.display().to_string();
    let info = match show(path, expected.now_unix) {
        Ok(mut infos) => infos.swap_remove(0),
        Err(error) => {
            let finding = Check::Files.problem(&subject, sentence(&error));
            return vec![finding.mended_by(mend(&error, &remake(expected.dir, kind, path, &[])))];
        }
    };
    // Made again, it has the names that it has.
    let again = match kind {
        Kind::Ca => next_ca(expected.dir, "renew"),
        Kind::Client | Kind::Server => remake(expected.dir, kind, path, &info.alt_names),
    };
    let mut findings = vec![expiry(expected, &subject, &info, kind)];
    findings.push(chain(expected, path, ca));
    if kind == Kind::Server {
        findings.extend(names(path, &info, expected));
    }
    findings.push(readable(expected, path, false));
    let key = path.with_extension("key");
    if key.exists() {
        findings.push(key_fits(expected, path, &key, &again));
        // Daemons do not need the CA's.
        if kind != Kind::Ca {
            findings.push(readable(expected, &key, true));
        }
        findings.push(secrecy(expected, &key));
    } else if kind == Kind::Server {
        let missing = Check::Files.problem(key.display().to_string(), "the private key is missing");
        findings.push(missing.mended_by(again));
    }
    findings
}

/// How long it lasts.
fn expiry(expected: &Expected<'_>, subject: &str, info: &CertInfo, kind: Kind) -> Finding {
    let until = format_iso(info.not_after);
    let dir = shell(expected.dir);
    let renew = match kind {
        // What an expired CA has signed is nobody's any more.
        Kind::Ca if info.days_left < 0 => next_ca(expected.dir, "renew --all"),
        Kind::Ca => next_ca(expected.dir, "renew"),
        Kind::Client | Kind::Server => format!("flwr-quic certs renew --dir {dir}"),
    };
    if expected.now_unix < info.not_before {
        let from = format_iso(info.not_before);
        return Check::Expiry
            .problem(subject, format!("it is not valid before {from}"))
            .mended_by("set the clock of this machine: timedatectl set-ntp true");
    }
    match info.days_left {
        left if left < 0 => Check::Expiry
            .problem(subject, format!("it expired on {until}"))
            .mended_by(renew),
        left if left < DAYS_MIN => Check::Expiry
            .warning(subject, format!("it expires on {until}, in {left} days"))
            .mended_by(renew),
        left => Check::Expiry.ok(subject, format!("valid until {until}, {left} days")),
    }
}

/// Whether the CA has signed it.
fn chain(expected: &Expected<'_>, path: &Path, ca: &Path) -> Finding {
    let subject = path.display().to_string();
    let renew = format!("flwr-quic certs renew --all --dir {}", shell(expected.dir));
    match verify(ca, path, None, None, expected.now_unix) {
        Err(error) => Check::Chain
            .problem(subject, sentence(&error))
            .mended_by(mend(&error, &renew)),
        Ok(problems) => {
            let not_signed = problems.into_iter().find(|one| one.contains("signed"));
            match not_signed {
                Some(why) => Check::Chain.problem(subject, why).mended_by(renew),
                None => Check::Chain.ok(subject, format!("signed by {}", ca.display())),
            }
        }
    }
}

/// Whether the key is its own.
fn key_fits(expected: &Expected<'_>, path: &Path, key: &Path, again: &str) -> Finding {
    let subject = key.display().to_string();
    match verify(path, path, Some(key), None, expected.now_unix) {
        Err(error) => Check::Key
            .problem(subject, sentence(&error))
            .mended_by(mend(&error, again)),
        Ok(problems) => match problems
            .into_iter()
            .find(|one| one.contains("does not fit"))
        {
            Some(why) => Check::Key.problem(subject, why).mended_by(again),
            None => Check::Key.ok(subject, format!("fits {}", path.display())),
        },
    }
}

/// Whether peers accept it by the names that they use.
fn names(path: &Path, info: &CertInfo, expected: &Expected<'_>) -> Vec<Finding> {
    let subject = path.display().to_string();
    let missing: Vec<_> = expected
        .hosts
        .iter()
        .filter(|host| !info.is_valid_for(host))
        .collect();
    let has = match info.alt_names.as_slice() {
        [] => "no host at all".to_owned(),
        names => names.join(", "),
    };
    if missing.is_empty() {
        return vec![Check::Names.ok(subject, format!("valid for {has}"))];
    }
    let mut wanted = info.alt_names.clone();
    wanted.extend(missing.iter().map(|host| (*host).clone()));
    let again = remake(expected.dir, Kind::Server, path, &wanted);
    missing
        .iter()
        .map(|host| {
            Check::Names
                .problem(&subject, format!("not valid for {host}, but for {has}"))
                .mended_by(&again)
        })
        .collect()
}

/// What mends a file that cannot be used. One that this user may not read can be as good as any: it is not made again.
fn mend(error: &CertError, again: &str) -> String {
    match error {
        CertError::File(FileError::Unreadable { path, source }) => match source.kind() {
            ErrorKind::IsADirectory => format!("rmdir {}, then {again}", shell(path)),
            _ => to_read(path),
        },
        _ => again.to_owned(),
    }
}

/// The command that makes a certificate again, with these names and the usual ones.
fn remake(dir: &Path, kind: Kind, path: &Path, names: &[String]) -> String {
    let dir = shell(dir);
    let (command, role) = match kind {
        Kind::Ca => {
            return format!(
                "copy it again from whoever has it; if it is lost: flwr-quic certs ca --dir {dir} --force, and give ca.crt \
                 to everybody"
            );
        }
        Kind::Server => ("server".to_owned(), Role::Server),
        Kind::Client => {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let number = stem.trim_start_matches("client");
            let role = Role::Client(number.parse().unwrap_or_default());
            (format!("client {number}"), role)
        }
    };
    let usual = usual_names(role);
    let more = names.iter().filter(|name| !usual.contains(name));
    let flags: String = more
        .map(|name| format!(" --san {}", shell(Path::new(name))))
        .collect();
    format!("flwr-quic certs {command} --dir {dir} --force{flags}")
}

/// How the next CA takes the place of the one that is there, without anybody who trusts the wrong one.
fn next_ca(dir: &Path, renew: &str) -> String {
    let dir = shell(dir);
    format!(
        "flwr-quic certs ca --rollover --dir {dir}; give ca.crt to everybody, and then: flwr-quic certs {renew} --dir {dir}"
    )
}

/// Enough to hand out a new one.
const DAYS_MIN: i64 = 30;

#[cfg(test)]
mod tests {
    use std::{fs, io};

    use flwr_certs::{
        CaOptions, LeafOptions, WriteOptions, create_ca, create_clients, create_server,
    };

    use super::*;
    use crate::doctor::finding::Level;

    /// 2025-09-15
    const NOW: f64 = 1_757_925_000.0;

    fn federation() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = WriteOptions::default();
        let names = ["fl.example.org", "10.1.2.3"].map(str::to_owned).into();
        let leaf = LeafOptions {
            names,
            ..LeafOptions::default()
        };
        create_ca(dir.path(), &CaOptions::default(), &write, NOW).unwrap();
        create_server(dir.path(), &leaf, &write, NOW).unwrap();
        create_clients(dir.path(), 1..=1, &leaf, &write, NOW).unwrap();
        dir
    }

    /// What is said to mend what is not well.
    fn remedies(dir: &Path, hosts: &[&str], now_unix: f64) -> Vec<String> {
        let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
        let expected = Expected {
            dir,
            hosts: &hosts,
            uid: None,
            strict: false,
            now_unix,
        };
        let findings = check(&expected).into_iter();
        let unwell = findings.filter(|one| one.level >= Level::Warning);
        unwell.map(|one| one.remedy.unwrap()).collect()
    }

    #[test]
    fn a_file_that_may_not_be_read_is_not_made_again() {
        let unreadable = |kind: ErrorKind| {
            let (path, source) = ("a/ca.key".into(), io::Error::from(kind));
            CertError::File(FileError::Unreadable { path, source })
        };
        let said = mend(&unreadable(ErrorKind::PermissionDenied), "make it");
        assert!(said.contains("chgrp") && said.contains("sudo"), "{said}");
        assert!(
            !said.contains("make it") && !said.contains("chown"),
            "{said}"
        );
        let said = mend(&unreadable(ErrorKind::IsADirectory), "make it");
        assert_eq!(said, "rmdir a/ca.key, then make it");
        let path = "a".into();
        let damaged = CertError::File(FileError::Damaged { path });
        assert_eq!(mend(&damaged, "make it"), "make it");
    }

    #[test]
    fn a_certificate_that_is_made_again_keeps_its_names() {
        let federation = federation();
        let dir = federation.path();
        let said = remedies(dir, &["other.example.org", "localhost"], NOW);
        let names = "--force --san fl.example.org --san 10.1.2.3 --san other.example.org";
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said.iter().all(|one| one.ends_with(names)), "{said:?}");

        fs::copy(dir.join("server.key"), dir.join("clients/client1.key")).unwrap();
        let [said] = remedies(dir, &[], NOW).try_into().unwrap();
        assert!(said.contains("certs client 1 --dir"), "{said}");
        assert!(
            said.ends_with("--force --san fl.example.org --san 10.1.2.3"),
            "{said}"
        );
    }

    #[test]
    fn the_ca_that_all_trust_is_followed_and_not_replaced() {
        let federation = federation();
        let dir = federation.path();
        fs::copy(dir.join("server.key"), dir.join("ca/ca.key")).unwrap();
        let mut said = remedies(dir, &[], NOW);
        let late = NOW + 3640.0 * 86_400.0;
        said.extend(
            remedies(dir, &[], late)
                .into_iter()
                .filter(|one| one.contains("rollover")),
        );
        assert!(said.len() > 1, "{said:?}");
        for one in said {
            let [first, then] =
                ["ca --rollover --dir", "certs renew --dir"].map(|part| one.find(part));
            let given = one.find("give ca.crt to everybody");
            assert!(first < given && given < then && first.is_some(), "{one}");
            assert!(!one.contains("--force"), "{one}");
        }
    }

    #[test]
    fn what_another_ca_has_signed_is_renewed_and_not_made_again() {
        let [one, other] = [federation(), federation()];
        for name in ["client1.crt", "client1.key"].map(|name| Path::new("clients").join(name)) {
            fs::copy(other.path().join(&name), one.path().join(&name)).unwrap();
        }
        let [said] = remedies(one.path(), &[], NOW).try_into().unwrap();
        assert!(
            said.starts_with("flwr-quic certs renew --all --dir"),
            "{said}"
        );
    }
}

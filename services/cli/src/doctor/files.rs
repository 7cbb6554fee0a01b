//! The files of certificates and keys: whether they are there, belong together, last, and are read by whom they should.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use flwr_certs::{CertInfo, client_certificates, format_iso, server_certificates, show, verify};

use super::finding::{Check, Finding};
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
            return vec![finding.mended_by(remake(expected.dir, kind, path))];
        }
    };
    let mut findings = vec![expiry(expected, &subject, &info, kind)];
    findings.push(chain(expected, path, kind, ca));
    if kind == Kind::Server {
        findings.extend(names(&subject, &info, expected));
    }
    findings.push(readable(expected, path, false));
    let key = path.with_extension("key");
    if key.exists() {
        findings.push(key_fits(expected, path, &key, kind));
        // Daemons do not need the CA's.
        if kind != Kind::Ca {
            findings.push(readable(expected, &key, true));
        }
        findings.push(secrecy(expected, &key));
    } else if kind == Kind::Server {
        let missing = Check::Files.problem(key.display().to_string(), "the private key is missing");
        findings.push(missing.mended_by(remake(expected.dir, kind, path)));
    }
    findings
}

/// How long it lasts.
fn expiry(expected: &Expected<'_>, subject: &str, info: &CertInfo, kind: Kind) -> Finding {
    let until = format_iso(info.not_after);
    let dir = shell(expected.dir);
    let renew = match kind {
        Kind::Ca => format!(
            "flwr-quic certs ca --rollover --dir {dir}, then flwr-quic certs renew --dir {dir}"
        ),
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
fn chain(expected: &Expected<'_>, path: &Path, kind: Kind, ca: &Path) -> Finding {
    let subject = path.display().to_string();
    match verify(ca, path, None, None, expected.now_unix) {
        Err(error) => Check::Chain.problem(subject, sentence(&error)),
        Ok(problems) => {
            let not_signed = problems.into_iter().find(|one| one.contains("signed"));
            match not_signed {
                Some(why) => {
                    Check::Chain
                        .problem(subject, why)
                        .mended_by(remake(expected.dir, kind, path))
                }
                None => Check::Chain.ok(subject, format!("signed by {}", ca.display())),
            }
        }
    }
}

/// Whether the key is its own.
fn key_fits(expected: &Expected<'_>, path: &Path, key: &Path, kind: Kind) -> Finding {
    let subject = key.display().to_string();
    match verify(path, path, Some(key), None, expected.now_unix) {
        Err(error) => Check::Key
            .problem(subject, sentence(&error))
            .mended_by(remake(expected.dir, kind, path)),
        Ok(problems) => match problems
            .into_iter()
            .find(|one| one.contains("does not fit"))
        {
            Some(why) => {
                Check::Key
                    .problem(subject, why)
                    .mended_by(remake(expected.dir, kind, path))
            }
            None => Check::Key.ok(subject, format!("fits {}", path.display())),
        },
    }
}

/// Whether peers accept it by the names that they use.
fn names(subject: &str, info: &CertInfo, expected: &Expected<'_>) -> Vec<Finding> {
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
    let flags: String = missing
        .iter()
        .map(|host| format!(" --san {host}"))
        .collect();
    let dir = shell(expected.dir);
    missing
        .iter()
        .map(|host| {
            Check::Names
                .problem(subject, format!("not valid for {host}, but for {has}"))
                .mended_by(format!("flwr-quic certs server --dir {dir} --force{flags}"))
        })
        .collect()
}

/// Whether who has to read a file can.
fn readable(expected: &Expected<'_>, path: &Path, is_key: bool) -> Finding {
    let subject = path.display().to_string();
    let Some(uid) = expected.uid else {
        return match fs::File::open(path) {
            Ok(_) => Check::Permissions.ok(subject, "readable"),
            Err(error) => Check::Permissions
                .problem(subject, format!("cannot be read: {error}"))
                .mended_by(format!("sudo chown $(id -u) {}", shell(path))),
        };
    };
    match unreadable(path, uid) {
        Ok(None) => Check::Permissions.ok(subject, format!("readable by user {uid}")),
        Ok(Some(which)) if which == path => {
            let remedy = match is_key {
                true => format!("sudo chown {uid} {}", shell(path)),
                false => format!("chmod a+r {}", shell(path)),
            };
            Check::Permissions
                .problem(subject, format!("user {uid} may not read it"))
                .mended_by(remedy)
        }
        Ok(Some(folder)) => Check::Permissions
            .problem(
                subject,
                format!("user {uid} may not enter {}", folder.display()),
            )
            .mended_by(format!("chmod a+x {}", shell(&folder))),
        Err(error) => Check::Permissions.problem(subject, format!("cannot be looked at: {error}")),
    }
}

/// What keeps a user from reading a file: itself, or a folder on the way that was named.
fn unreadable(path: &Path, uid: u32) -> std::io::Result<Option<PathBuf>> {
    let folders = path.ancestors().skip(1);
    for folder in folders.filter(|folder| !folder.as_os_str().is_empty()) {
        let meta = folder.metadata()?;
        if !may(&meta, uid, Access::Enter) {
            return Ok(Some(folder.to_owned()));
        }
    }
    let meta = path.metadata()?;
    let allowed = may(&meta, uid, Access::Read);
    Ok((!allowed).then(|| path.to_owned()))
}

/// What is asked of a file's mode.
#[derive(Clone, Copy, Debug)]
enum Access {
    Enter,
    Read,
}

/// Whether a user may.
fn may(meta: &fs::Metadata, uid: u32, access: Access) -> bool {
    allows(meta.mode(), [meta.uid(), meta.gid()], uid, access)
}

/// Whether a mode lets a user in, whose group has the same number, as in our images.
fn allows(mode: u32, [owner, group]: [u32; 2], uid: u32, access: Access) -> bool {
    let bit = match access {
        Access::Enter => 0o1,
        Access::Read => 0o4,
    };
    let shift = match uid {
        uid if uid == owner => 6,
        uid if uid == group => 3,
        _ => 0,
    };
    uid == 0 || mode >> shift & bit != 0
}

/// Who else can use a private key: 400 or 600 in production, 644 in development (the guide's rule).
fn secrecy(expected: &Expected<'_>, key: &Path) -> Finding {
    let subject = key.display().to_string();
    let Ok(meta) = key.metadata() else {
        return Check::Permissions.problem(subject, "cannot be looked at");
    };
    let mode = meta.mode() & 0o777;
    let finding = match others(mode) {
        None => {
            return Check::Permissions.ok(subject, format!("mode {mode:03o}, for its owner alone"));
        }
        Some(who) if expected.strict => Check::Permissions.problem(
            subject,
            format!("mode {mode:03o}: {who} can use the private key"),
        ),
        Some(who) => Check::Permissions.warning(
            subject,
            format!(
                "mode {mode:03o}: {who} can use the private key, which is for development only"
            ),
        ),
    };
    finding.mended_by(format!("chmod 400 {}", shell(key)))
}

fn others(mode: u32) -> Option<&'static str> {
    match mode {
        mode if mode & 0o007 != 0 => Some("everybody on this machine"),
        mode if mode & 0o070 != 0 => Some("its group"),
        _ => None,
    }
}

/// The command that makes a certificate again.
fn remake(dir: &Path, kind: Kind, path: &Path) -> String {
    let dir = shell(dir);
    match kind {
        Kind::Ca => format!("flwr-quic certs ca --dir {dir} --force"),
        Kind::Server => format!("flwr-quic certs server --dir {dir} --force"),
        Kind::Client => {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let number = stem.trim_start_matches("client");
            format!("flwr-quic certs client {number} --dir {dir} --force")
        }
    }
}

/// Enough to hand out a new one.
const DAYS_MIN: i64 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_say_who_may() {
        for (mode, owner, uid, reads, enters) in [
            (0o400, [49999, 0], 49999, true, false),
            (0o400, [1000, 1000], 49999, false, false),
            (0o640, [0, 49999], 49999, true, false),
            (0o644, [1000, 1000], 49999, true, false),
            (0o700, [1000, 1000], 49999, false, false),
            (0o711, [1000, 1000], 49999, false, true),
            (0o000, [1000, 1000], 0, true, true),
            // The owner's bits alone count for the owner.
            (0o044, [49999, 0], 49999, false, false),
        ] {
            assert_eq!(allows(mode, owner, uid, Access::Read), reads, "{mode:o}");
            assert_eq!(allows(mode, owner, uid, Access::Enter), enters, "{mode:o}");
        }
    }

    #[test]
    fn keys_are_for_their_owner() {
        assert_eq!(others(0o400), None);
        assert_eq!(others(0o600), None);
        assert!(others(0o640).unwrap().contains("group"));
        assert!(others(0o644).unwrap().contains("everybody"));
    }
}

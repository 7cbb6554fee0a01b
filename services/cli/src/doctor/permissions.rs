//! Whether files are read by whom they should, and by nobody else.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{
    files::Expected,
    finding::{Check, Finding},
};
use crate::output::shell;

/// Whether who has to read a file can.
pub(super) fn readable(expected: &Expected<'_>, path: &Path, is_key: bool) -> Finding {
    let subject = path.display().to_string();
    let Some(uid) = expected.uid else {
        return match fs::File::open(path) {
            Ok(_) => Check::Permissions.ok(subject, "readable"),
            Err(error) => Check::Permissions
                .problem(subject, format!("cannot be read: {error}"))
                .mended_by(to_read(path)),
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
        Err(error) => Check::Permissions
            .problem(subject, format!("cannot be looked at: {error}"))
            .mended_by(to_read(path)),
    }
}

/// How whoever looks gets to read a file. Whose it is stays, for whoever reads it now.
pub(super) fn to_read(path: &Path) -> String {
    let path = shell(path);
    format!(
        "look with sudo, or let your group read it: sudo chgrp $(id -g) {path} && sudo chmod g+r {path}"
    )
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
pub(super) fn secrecy(expected: &Expected<'_>, key: &Path) -> Finding {
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

//! The crate from outside: node authentication, key files and lists, certificates, TLS.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::{io, path::Path, process::Command};

mod auth;
mod certificates;
mod client_certificate;
mod client_tls;
mod join_secret;
mod key_files;
mod key_list;
mod renew;
mod tls;

/// 2025-09-15T08:30:00.25Z
const NOW: f64 = 1_757_925_000.25;

/// Runs a program that must succeed and gives its output; `None` where it is not installed.
fn run(program: &str, dir: &Path, args: &[&str]) -> Option<String> {
    let output = match Command::new(program).args(args).current_dir(dir).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        other => other.unwrap(),
    };
    assert!(
        output.status.success(),
        "{program} {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Some(String::from_utf8(output.stdout).unwrap())
}

fn openssl(dir: &Path, args: &[&str]) -> Option<String> {
    run("openssl", dir, args)
}

fn ssh_keygen(args: &[&str]) -> Option<String> {
    run("ssh-keygen", Path::new("/"), args)
}

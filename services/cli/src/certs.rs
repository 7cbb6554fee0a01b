//! `flwr-quic certs`: the certificates of a federation, made, renewed, checked and shown.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use flwr_certs::{
    CaOptions, CertInfo, LeafOptions, NodePublicKey, WriteOptions, client_certificates, create_ca,
    create_client_for, create_clients, create_server, format_iso, server_certificates, show,
    verify,
};
use flwr_state::{Clock as _, SystemClock};

use crate::{
    args::certs::{Ca, Client, Command, Place, Server, Show, Verify},
    exit::{Exit, sentence},
    output::shell,
};

mod renew;

/// Does what was asked, and gives what to print.
///
/// # Errors
/// When files are in the way, missing or wrong, or cannot be read or written.
pub(crate) fn run(command: &Command) -> Result<String, Exit> {
    let now_unix = SystemClock.now().seconds();
    match command {
        Command::Ca(ca) => make_ca(ca, now_unix),
        Command::Client(client) => make_client(client, now_unix),
        Command::Renew(renewing) => renew::run(renewing, now_unix),
        Command::Server(server) => make_server(server, now_unix),
        Command::Show(files) => show_files(files, now_unix),
        Command::Verify(what) if what.ca.is_some() => verify_files(what, now_unix),
        Command::Verify(what) => verify_dir(what, now_unix),
    }
}

fn make_ca(ca: &Ca, now_unix: f64) -> Result<String, Exit> {
    let options = CaOptions {
        common_name: ca.name.clone(),
        ..CaOptions::default()
    };
    if ca.in_place && !ca.rollover && !ca.retire {
        return Err(Exit::Problem(
            "--in-place is for a CA that is there: give it with --rollover or --retire".into(),
        ));
    }
    if ca.rollover {
        return renew::next_ca(ca, &options, now_unix);
    }
    if ca.retire {
        return renew::retire(ca);
    }
    let written = create_ca(&ca.place.dir, &options, &write_options(&ca.place), now_unix)
        .map_err(|error| Exit::because(&error))?;
    Ok(format!(
        "{}\nNext, make the SuperLink's certificate, with a --san for each further name or address that peers use:\n  \
         flwr-quic certs server{}\n",
        wrote(&written),
        dir_flag(&ca.place.dir)
    ))
}

fn make_server(server: &Server, now_unix: f64) -> Result<String, Exit> {
    let dir = &server.place.dir;
    let options = LeafOptions {
        names: server.san.clone(),
        ..LeafOptions::default()
    };
    let written = create_server(dir, &options, &write_options(&server.place), now_unix)
        .map_err(|error| Exit::because(&error))?;
    let names = certificate_in(&written)
        .and_then(|path| show(path, now_unix).ok())
        .and_then(|infos| infos.into_iter().next())
        .map(|info| info.alt_names.join(", "))
        .unwrap_or_default();
    let ca = dir.join("ca.crt");
    Ok(format!(
        "{}valid for {names}\n\nNext, start the SuperLink:\n  flwr-quic superlink --ssl-ca-certfile {} --ssl-certfile {} \
         --ssl-keyfile {}\nand SuperNodes that trust it:\n  flower-supernode --root-certificates {} --superlink \
         HOST:9092\n",
        wrote(&written),
        shell(&ca),
        shell(&dir.join("server.pem")),
        shell(&dir.join("server.key")),
        shell(&ca)
    ))
}

fn make_client(client: &Client, now_unix: f64) -> Result<String, Exit> {
    let dir = &client.place.dir;
    let options = LeafOptions {
        names: client.san.clone(),
        ..LeafOptions::default()
    };
    let number = client.number;
    let write = write_options(&client.place);
    let written = match &client.node_key {
        None => create_clients(dir, number..=number, &options, &write, now_unix),
        Some(path) => {
            let node = public_key(path)?;
            create_client_for(dir, number, &node, &options, &write, now_unix)
        }
    };
    let written = written.map_err(|error| Exit::because(&error))?;
    Ok(format!(
        "{}\nNext, check all that was made:\n  flwr-quic certs verify{}\n",
        wrote(&written),
        dir_flag(dir)
    ))
}

fn public_key(path: &Path) -> Result<NodePublicKey, Exit> {
    let refuse = |why: &dyn std::error::Error| {
        let (name, why) = (path.display(), sentence(why));
        Exit::Problem(format!("{name} is not the public key of a node: {why}"))
    };
    let text = fs::read_to_string(path).map_err(|error| refuse(&error))?;
    NodePublicKey::from_text(&text).map_err(|error| refuse(&error))
}

fn verify_files(what: &Verify, now_unix: f64) -> Result<String, Exit> {
    let (Some(ca), Some(certificate)) = (&what.ca, &what.cert) else {
        return Err(Exit::Problem("give --ca and --cert together".into()));
    };
    let mut report = Report::default();
    report.check(
        ca,
        certificate,
        what.key.as_deref(),
        what.host.as_deref(),
        now_unix,
    );
    report.finish()
}

/// Checks everything below a directory that `certs` writes, in either layout.
fn verify_dir(what: &Verify, now_unix: f64) -> Result<String, Exit> {
    let dir = &what.dir;
    let mut report = Report::default();
    let ca = [dir.join("ca/ca.crt"), dir.join("ca.crt")]
        .into_iter()
        .find(|path| path.exists())
        .ok_or_else(|| {
            Exit::Problem(format!(
                "there is no ca.crt in {0}: make one with `flwr-quic certs ca --dir {0}`, or give another --dir",
                dir.display()
            ))
        })?;
    let ca_key = ca.with_extension("key");
    let ca_key = Some(ca_key).filter(|path| path.exists());
    report.check(&ca, &ca, ca_key.as_deref(), None, now_unix);
    let flat_ca = dir.join("ca.crt");
    if ca != flat_ca && flat_ca.exists() {
        report.check(&ca, &flat_ca, None, None, now_unix);
    }
    for certificate in server_certificates(dir) {
        let key = certificate.with_extension("key");
        let host = what.host.as_deref();
        report.check(&ca, &certificate, Some(&key), host, now_unix);
    }
    for certificate in client_certificates(dir) {
        let key = certificate.with_extension("key");
        // A node's own key is elsewhere.
        let key = Some(key).filter(|path| path.exists());
        report.check(&ca, &certificate, key.as_deref(), None, now_unix);
    }
    report.finish()
}

/// What a verification found, file by file.
#[derive(Debug, Default)]
struct Report {
    good: Vec<String>,
    bad: Vec<String>,
}

impl Report {
    fn check(
        &mut self,
        ca: &Path,
        certificate: &Path,
        key: Option<&Path>,
        host: Option<&str>,
        now_unix: f64,
    ) {
        let name = certificate.display();
        let mut problems = match verify(ca, certificate, key, host, now_unix) {
            Ok(problems) => problems,
            Err(error) => vec![sentence(&error)],
        };
        problems.extend(key.and_then(readable_by_others));
        if problems.is_empty() {
            self.good
                .push(format!("{name}: ok{}", validity(certificate, now_unix)));
        } else {
            self.bad
                .extend(problems.iter().map(|problem| format!("{name}: {problem}")));
        }
    }

    fn finish(self) -> Result<String, Exit> {
        let mut lines = self.good;
        if self.bad.is_empty() {
            lines.push(String::new());
            return Ok(lines.join("\n"));
        }
        Err(Exit::Problem(self.bad.join("\nerror: ")))
    }
}

fn readable_by_others(key: &Path) -> Option<String> {
    let mode = key.metadata().ok()?.permissions().mode() & 0o777;
    (mode & 0o007 != 0).then(|| {
        format!(
            "everybody on this machine can use the private key {0} (mode {mode:04o}): `chmod 600 {0}`",
            key.display()
        )
    })
}

fn validity(certificate: &Path, now_unix: f64) -> String {
    match show(certificate, now_unix).as_deref() {
        Ok([info, ..]) => format!(", {} days left", info.days_left),
        _ => String::new(),
    }
}

fn show_files(files: &Show, now_unix: f64) -> Result<String, Exit> {
    let mut text = String::new();
    for path in &files.files {
        for info in show(path, now_unix).map_err(|error| Exit::because(&error))? {
            describe(&mut text, path, &info);
        }
    }
    Ok(text)
}

fn describe(text: &mut String, path: &Path, info: &CertInfo) {
    let hosts = if info.alt_names.is_empty() {
        "no host".to_owned()
    } else {
        info.alt_names.join(", ")
    };
    let kind = if info.is_ca {
        "certificate authority"
    } else {
        "certificate"
    };
    // Writing to a String cannot fail.
    let _ok = write!(
        text,
        "{}: {kind}\n  subject      {}\n  issuer       {}\n  valid for    {hosts}\n  valid from   {}\n  valid until  {} \
         ({} days left)\n  key          {}\n  serial       {}\n  sha256       {}\n",
        path.display(),
        info.subject,
        info.issuer,
        format_iso(info.not_before),
        format_iso(info.not_after),
        info.days_left,
        info.key_algorithm,
        info.serial,
        info.fingerprint_sha256,
    );
}

fn write_options(place: &Place) -> WriteOptions {
    WriteOptions {
        overwrite: place.force,
        ..WriteOptions::default()
    }
}

fn wrote(paths: &[PathBuf]) -> String {
    let mut text = String::new();
    for path in paths {
        let note = if path.extension().is_some_and(|extension| extension == "key") {
            " (private)"
        } else {
            ""
        };
        // Writing to a String cannot fail.
        let _ok = writeln!(text, "wrote {}{note}", path.display());
    }
    text
}

fn certificate_in(paths: &[PathBuf]) -> Option<&Path> {
    paths
        .iter()
        .find(|path| path.extension().is_some_and(|extension| extension != "key"))
        .map(PathBuf::as_path)
}

/// The flag that names the directory, unless it is the default one.
fn dir_flag(dir: &Path) -> String {
    if dir == Path::new("certificates") {
        String::new()
    } else {
        format!(" --dir {}", shell(dir))
    }
}

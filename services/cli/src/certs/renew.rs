//! `flwr-quic certs renew`, and the change from one CA to the next.

use std::fmt::Write as _;

use flwr_certs::{CaOptions, RenewOptions, Renewal, renew, retire_former, roll_over};

use super::{dir_flag, wrote};
use crate::{
    args::certs::{Ca, Renew},
    exit::Exit,
    output::shell,
};

/// Renews what is due.
pub(super) fn run(renewing: &Renew, now_unix: f64) -> Result<String, Exit> {
    let options = RenewOptions {
        all: renewing.all,
        within_days: renewing.within.into(),
        new_keys: renewing.new_keys,
        in_place: renewing.in_place,
    };
    let done = renew(&renewing.dir, &options, now_unix).map_err(|error| Exit::because(&error))?;
    let mut text = String::new();
    for renewal in &done {
        describe(&mut text, renewal);
    }
    let mut renewed = done.iter().filter_map(|renewal| renewal.renewed.as_ref());
    if renewed.clone().any(|one| one.ends_with_ca) {
        // Writing to a String cannot fail.
        let _ok = writeln!(
            text,
            "\nWhat ends with the CA would last longer with the next one, which `flwr-quic certs ca --rollover{}` makes.",
            dir_flag(&renewing.dir)
        );
    }
    if renewed.next().is_some() {
        text.push_str(
            "\nRunning daemons that read these files take them up within seconds; other programs, and units of systemd, \
             need a restart. Hand out those of clients that are elsewhere.\n",
        );
    }
    Ok(text)
}

fn describe(text: &mut String, renewal: &Renewal) {
    let files: Vec<_> = renewal
        .certificates
        .iter()
        .map(|path| shell(path))
        .collect();
    let files = files.join(", ");
    // Writing to a String cannot fail.
    let _ok = match &renewal.renewed {
        None if renewal.is_foreign => writeln!(
            text,
            "{files}: not signed by a CA in ca.crt and left alone, give --all to have it signed by the one here"
        ),
        None => writeln!(text, "{files}: not due, {} days left", renewal.days_left),
        Some(renewed) => {
            let keys: Vec<_> = renewed.keys.iter().map(|path| shell(path)).collect();
            let key = match keys.as_slice() {
                [] => "the same key".to_owned(),
                keys => format!("a new key in {}", keys.join(", ")),
            };
            let end = match renewed.ends_with_ca {
                true => "the end of the CA, ",
                false => "",
            };
            writeln!(
                text,
                "{files}: renewed, valid until {end}{}, {key}",
                renewed.until
            )
        }
    };
}

/// Makes the next CA beside the one that is there.
pub(super) fn next_ca(ca: &Ca, options: &CaOptions, now_unix: f64) -> Result<String, Exit> {
    let dir = &ca.place.dir;
    let written =
        roll_over(dir, options, ca.in_place, now_unix).map_err(|error| Exit::because(&error))?;
    let flag = dir_flag(dir);
    Ok(format!(
        "{}\nNext, give ca.crt, which holds both CAs, to whoever connects: nodes, SuperExecs and users. When all have it,\n  \
         flwr-quic certs renew{flag}\nHand out the certificates of clients, and once nobody uses one of the former CA\n  \
         flwr-quic certs ca --retire{flag}\n",
        wrote(&written)
    ))
}

/// Takes the CAs before it out of `ca.crt`.
pub(super) fn retire(ca: &Ca) -> Result<String, Exit> {
    let written = retire_former(&ca.place.dir, ca.place.force, ca.in_place)
        .map_err(|error| Exit::because(&error))?;
    Ok(format!(
        "{}\nNext, give ca.crt to whoever has the one with both CAs.\n",
        wrote(&written)
    ))
}

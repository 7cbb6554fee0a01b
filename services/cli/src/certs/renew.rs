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
    if done.iter().any(|renewal| renewal.renewed.is_some()) {
        text.push_str(
            "\nRunning daemons take them up within seconds; other programs need a restart.\n",
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
        None => writeln!(text, "{files}: not due, {} days left", renewal.days_left),
        Some(renewed) => {
            let keys: Vec<_> = renewed.keys.iter().map(|path| shell(path)).collect();
            let key = match keys.as_slice() {
                [] => "the same key".to_owned(),
                keys => format!("a new key in {}", keys.join(", ")),
            };
            writeln!(
                text,
                "{files}: renewed, valid until {}, {key}",
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
         flwr-quic certs renew{flag}\nand once no certificate of the former CA is in use\n  flwr-quic certs ca --retire{flag}\n",
        wrote(&written)
    ))
}

/// Takes the CAs before it out of `ca.crt`.
pub(super) fn retire(ca: &Ca) -> Result<String, Exit> {
    let written =
        retire_former(&ca.place.dir, ca.in_place).map_err(|error| Exit::because(&error))?;
    Ok(format!(
        "{}\nNext, give ca.crt to whoever has the one with both CAs.\n",
        wrote(&written)
    ))
}

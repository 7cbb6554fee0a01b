//! `flwr-quic state`: what operators do with the state of a SuperLink that has a database.

use flwr_state_embedded::upkeep::{self, Report, Totals, UpkeepError};

use crate::{
    args::state::{Backup, Command, Place, Restore},
    exit::Exit,
    home,
    output::{say, shell},
};

/// Does what was asked, and gives what to print.
///
/// # Errors
/// When something is wrong with the state, or in the way.
pub(crate) fn run(command: &Command) -> Result<String, Exit> {
    match command {
        Command::Check(place) => check(place),
        Command::Compact(place) => compact(place),
        Command::Backup(asked) => backup(asked),
        Command::Restore(asked) => restore(asked),
    }
}

fn check(asked: &Place) -> Result<String, Exit> {
    let report = upkeep::check(&place(asked)?).map_err(|error| Exit::because(&error))?;
    let Report { totals, findings } = &report;
    let summary = format!("{} holds {}\n", asked.database.display(), describe(totals));
    if findings.is_empty() {
        return Ok(format!("{summary}all of it is as it was written\n"));
    }
    let findings: Vec<_> = findings
        .iter()
        .map(|what| format!("found: {what}\n"))
        .collect();
    say(&format!("{summary}{}", findings.concat()));
    Err(Exit::Problem(format!(
        "{} found in {}; a SuperLink that opens it answers for lost objects with errors, and refuses other damage: \
         restore a backup then",
        count(findings.len(), "thing is wrong", "things are wrong"),
        asked.database.display()
    )))
}

fn compact(asked: &Place) -> Result<String, Exit> {
    let done = upkeep::compact(&place(asked)?).map_err(because)?;
    Ok(format!(
        "{} and its objects took {} bytes before and take {} now\nremoved {} that nothing needed\n",
        asked.database.display(),
        done.before,
        done.after,
        count(done.removed, "file", "files"),
    ))
}

fn backup(asked: &Backup) -> Result<String, Exit> {
    let report = upkeep::backup(&place(&asked.place)?, &asked.target).map_err(because)?;
    let target = shell(&asked.target);
    let copy = upkeep::Place::of_backup(&asked.target);
    Ok(format!(
        "wrote {} with {} (secret: whoever reads it can act for the runs in it)\n\n\
         Check it again at any time, or make a state of it, with:\n  \
         flwr-quic state check --database {} --storage-dir {}\n  \
         flwr-quic state restore {target} --database FILE --storage-dir DIR\n",
        asked.target.display(),
        describe(&report.totals),
        shell(&copy.database),
        shell(&copy.objects),
    ))
}

fn restore(asked: &Restore) -> Result<String, Exit> {
    let place = place(&asked.place)?;
    let report = upkeep::restore(&asked.backup, &place).map_err(because)?;
    Ok(format!(
        "restored {}\n\nNext, start the SuperLink with it:\n  \
         flwr-quic superlink --database {} --storage-dir {} ...\n",
        describe(&report.totals),
        shell(&place.database),
        shell(&place.objects),
    ))
}

fn place(asked: &Place) -> Result<upkeep::Place, Exit> {
    let objects = match asked.storage_dir() {
        Some(given) => given.to_owned(),
        None => home::default_storage_dir()?,
    };
    Ok(upkeep::Place {
        database: asked.database.clone(),
        objects,
    })
}

fn because(error: UpkeepError) -> Exit {
    Exit::because(&error)
}

fn describe(totals: &Totals) -> String {
    [
        count(totals.runs, "run", "runs"),
        count(totals.nodes, "node", "nodes"),
        count(totals.messages, "message", "messages"),
        format!(
            "{} of {} bytes",
            count(totals.objects, "object", "objects"),
            totals.object_bytes
        ),
        count(totals.bundles, "FAB", "FABs"),
        count(totals.log_entries, "log entry", "log entries"),
    ]
    .join(", ")
}

fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

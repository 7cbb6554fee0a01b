//! `flwr-quic status`: what a running SuperLink is at.
//!
//! Runs come from the Control API, by the call that `flwr ls` makes, so it works with every SuperLink. Nodes, rounds and
//! transfers come from the metrics, which an operator has opened to whom he trusts: a call for them on Control would tell
//! everybody who may submit runs.

mod figures;
mod page;

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _},
    time::Duration,
};

use flwr_certs::format_iso;
use flwr_compat_grpc::{
    client::Questioner,
    f1::look::{self, RunSeen, RunsSeen},
};
use flwr_transport::Current;
use serde_json::{Value, json};
use tokio::{sync::OnceCell, time::sleep};

use crate::{
    address::Address,
    args::{doctor::OutputFormat, status::StatusOptions},
    exit::Exit,
    output::{Said, say},
    peer,
};
use figures::Figures;
use page::Page;

/// Prints what there is; again and again if that was asked for, until nobody reads it. False if it cannot be printed.
///
/// # Errors
/// When the SuperLink does not answer; while it is watched, that is said and tried again.
pub(crate) async fn run(options: StatusOptions) -> Result<bool, Exit> {
    let source = Source::new(&options)?;
    let mut before = None;
    loop {
        let looked = source.look(&mut before).await;
        let Some(seconds) = options.watch else {
            return Ok(say(&print(&looked?, options.format)) != Said::Failed);
        };
        let text = match looked {
            Ok(status) => print(&status, options.format),
            Err(error) => complaint(&error, options.format),
        };
        let clear = options.format == OutputFormat::Human && io::stdout().is_terminal();
        match say(&format!("{}{text}", if clear { CLEAR } else { "" })) {
            Said::Printed => sleep(Duration::from_secs(seconds)).await,
            Said::Unwanted => return Ok(true),
            Said::Failed => return Ok(false),
        }
    }
}

/// Where it comes from.
struct Source {
    address: Address,
    control: Questioner,
    metrics: Option<Address>,
    patience: Duration,
    /// Asked for once: the question is a refused call, which is a line in the SuperLink's log.
    version: OnceCell<Option<String>>,
}

/// What there is.
struct Status {
    address: Address,
    version: Option<String>,
    seen: RunsSeen,
    figures: Option<Figures>,
}

impl Source {
    fn new(options: &StatusOptions) -> Result<Self, Exit> {
        let address = Address::parse(&options.control)?;
        let metrics = options.metrics.as_deref().map(Address::parse).transpose()?;
        let patience = Duration::from_secs(options.timeout);
        let tls = peer::client_tls(&options.trust, None)
            .map_err(|(path, why)| Exit::Problem(format!("{}: {why}", path.display())))?;
        let tls = tls.map(Current::new);
        let control = Questioner::new(&address.host, address.port, tls, patience);
        Ok(Self {
            address,
            control,
            metrics,
            patience,
            version: OnceCell::new(),
        })
    }

    /// What the metrics say, with the rates since `before`, or, the first time, since a moment ago.
    async fn figures(&self, before: &mut Option<Page>) -> Result<Option<Figures>, Exit> {
        let Some(metrics) = &self.metrics else {
            return Ok(None);
        };
        let fetch = || async {
            let page = Page::fetch(metrics, self.patience).await;
            page.map_err(Exit::Problem)
        };
        let former = match before.take() {
            Some(page) => page,
            None => {
                let page = fetch().await?;
                sleep(RATE_PERIOD).await;
                page
            }
        };
        let page = fetch().await?;
        let figures = Figures::of(&former, &page);
        *before = Some(page);
        Ok(Some(figures))
    }

    async fn look(&self, before: &mut Option<Page>) -> Result<Status, Exit> {
        let unreached = |error: flwr_transport::ConnectError| {
            Exit::Problem(format!("the SuperLink tells nothing: {}", error.message))
        };
        let seen = look::list_runs(&self.control).await.map_err(unreached)?;
        let asked = self.version.get_or_try_init(async || {
            let server = look::identify(&self.control).await?;
            Ok(server.version)
        });
        let version = asked.await.map_err(unreached)?.clone();
        Ok(Status {
            address: self.address.clone(),
            version,
            seen,
            figures: self.figures(before).await?,
        })
    }
}

fn print(status: &Status, format: OutputFormat) -> String {
    match format {
        OutputFormat::Human => for_people(status),
        OutputFormat::Json => format!("{}\n", as_json(status)),
    }
}

/// Why there is nothing to print this time.
fn complaint(why: &Exit, format: OutputFormat) -> String {
    match format {
        OutputFormat::Human => format!("error: {why}\n"),
        OutputFormat::Json => format!("{}\n", json!({ "error": why.to_string() })),
    }
}

fn for_people(status: &Status) -> String {
    let who = match &status.version {
        Some(version) => format!("flwr-quic {version}"),
        None => "not flwr-quic".to_owned(),
    };
    let clock = status.seen.now.map(format_iso).unwrap_or_default();
    let mut text = format!("SuperLink  {}, {who}, {clock}\n", status.address);
    match &status.figures {
        Some(figures) => {
            for line in figures.lines() {
                // Writing to a String cannot fail.
                let _ok = writeln!(text, "{line}");
            }
        }
        None => text.push_str("nodes, rounds and transfers: give --metrics HOST:PORT, the SuperLink's --metrics-address\n"),
    }
    text.push('\n');
    text.push_str(&table(&status.seen.runs));
    text
}

/// Those that are not over, and the last that are.
fn table(runs: &[RunSeen]) -> String {
    if runs.is_empty() {
        return "no runs\n".to_owned();
    }
    let is_over = |run: &&RunSeen| run.status.starts_with("finished");
    let over = runs.iter().filter(is_over).count();
    let mut left_out = over.saturating_sub(FINISHED_MAX);
    let mut text = match left_out {
        0 => String::new(),
        hidden => format!("{hidden} older runs are over and left out\n"),
    };
    let mut line = |[id, status, took, submitted, app]: [&str; 5]| {
        // Writing to a String cannot fail.
        let _ok = writeln!(
            text,
            "{id:<20}  {status:<19}  {took:>9}  {submitted:<20}  {app}"
        );
    };
    line(["run", "status", "took", "submitted", "app"]);
    for run in runs {
        if is_over(&run) && left_out > 0 {
            left_out -= 1;
            continue;
        }
        let took = run.took.map_or_else(|| "-".to_owned(), duration);
        let submitted = run
            .since
            .map(|at| format_iso(at.floor()))
            .unwrap_or_default();
        let details = match run.details.as_str() {
            "" => run.app.clone(),
            details => format!("{} ({details})", run.app),
        };
        line([
            &run.id.to_string(),
            &run.status,
            &took,
            &submitted,
            &details,
        ]);
    }
    text
}

fn duration(took: Duration) -> String {
    let seconds = took.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, _) => format!("{:.1} s", took.as_secs_f64()),
        (0, minutes, seconds) => format!("{minutes} m {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} m"),
    }
}

fn as_json(status: &Status) -> Value {
    let runs: Vec<_> = status
        .seen
        .runs
        .iter()
        .map(|run| {
            json!({
                // As text: 64 bits do not fit into every reader's numbers.
                "id": run.id.to_string(),
                "app": run.app,
                "status": run.status,
                "details": run.details,
                "submitted": run.since.map(format_iso),
                "seconds": run.took.map(|took| took.as_secs_f64()),
            })
        })
        .collect();
    json!({
        "superlink": status.address.to_string(),
        "version": status.version,
        "now": status.seen.now.map(format_iso),
        "runs": runs,
        "figures": status.figures.as_ref().map(Figures::as_json),
    })
}

/// Between the two looks that a rate is made of.
const RATE_PERIOD: Duration = Duration::from_secs(1);
/// Runs that are over and still shown.
const FINISHED_MAX: usize = 10;
/// An empty screen.
const CLEAR: &str = "\x1b[2J\x1b[H";

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: u64, status: &str) -> RunSeen {
        RunSeen {
            id,
            app: "me/app 1.0".into(),
            status: status.into(),
            details: String::new(),
            since: Some(1_757_925_000.0),
            took: Some(Duration::from_secs(65)),
        }
    }

    #[test]
    fn old_runs_are_left_out_and_those_that_go_on_are_not() {
        let mut runs = vec![run(1, "running")];
        runs.extend((2..20).map(|id| run(id, "finished:completed")));
        let text = table(&runs);
        assert!(text.starts_with("8 older runs"), "{text}");
        assert_eq!(text.lines().count(), 1 + 1 + 1 + FINISHED_MAX, "{text}");
        assert!(
            text.contains("\n1  ") && text.contains("\n19 ") && !text.contains("\n2  "),
            "{text}"
        );
        assert!(text.contains("1 m 05 s"), "{text}");
        assert_eq!(table(&[]), "no runs\n");
    }

    #[test]
    fn durations() {
        for (seconds, said) in [(1.25, "1.2 s"), (61.0, "1 m 01 s"), (7300.0, "2 h 01 m")] {
            assert_eq!(duration(Duration::from_secs_f64(seconds)), said);
        }
    }
}

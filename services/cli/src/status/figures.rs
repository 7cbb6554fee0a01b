//! What the metrics of a SuperLink say of nodes, messages, rounds and transfers.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::page::Page;

/// The figures of one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    /// SuperNodes by state.
    pub(super) nodes: BTreeMap<String, f64>,
    /// Instructions by state.
    pub(super) messages: BTreeMap<String, f64>,
    /// By kind, how many there were and how many seconds they took.
    pub(super) rounds: BTreeMap<String, (f64, f64)>,
    pub(super) transfers: Vec<Transfers>,
}

/// What goes over one transport one way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Transfers {
    pub(super) transport: String,
    pub(super) direction: String,
    pub(super) bytes: f64,
    /// Between two looks.
    pub(super) bytes_per_second: f64,
}

impl Figures {
    /// Those of `page`, with the rates since `before`.
    pub(super) fn of(before: &Page, page: &Page) -> Self {
        let counts = page.by("flwr_quic_round_duration_seconds_count", "kind");
        let sums = page.by("flwr_quic_round_duration_seconds_sum", "kind");
        let rounds = counts.into_iter().map(|(kind, count)| {
            let seconds = sums.get(&kind).copied().unwrap_or_default();
            (kind, (count, seconds))
        });
        Self {
            nodes: page.by("flwr_quic_nodes", "state"),
            messages: page.by("flwr_quic_instructions", "state"),
            rounds: rounds.collect(),
            transfers: transfers(before, page),
        }
    }

    pub(super) fn as_json(&self) -> Value {
        let rounds: BTreeMap<_, _> = self
            .rounds
            .iter()
            .map(|(kind, (count, seconds))| (kind, json!({ "count": count, "seconds": seconds })))
            .collect();
        let transfers: Vec<_> = self
            .transfers
            .iter()
            .map(|one| {
                json!({
                    "transport": one.transport,
                    "direction": one.direction,
                    "bytes": one.bytes,
                    "bytes_per_second": one.bytes_per_second,
                })
            })
            .collect();
        json!({ "nodes": self.nodes, "messages": self.messages, "rounds": rounds, "transfers": transfers })
    }

    /// Lines for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("nodes      {}", listed(&self.nodes, "none online")),
            format!("messages   {}", listed(&self.messages, "none on the way")),
        ];
        let rounds: Vec<_> = self
            .rounds
            .iter()
            .filter(|(_, (count, _))| *count > 0.0)
            .map(|(kind, (count, seconds))| {
                format!("{count} {kind}, {:.2} s on average", seconds / count)
            })
            .collect();
        lines.push(format!("rounds     {}", or(&rounds.join("; "), "none yet")));
        let busy: Vec<_> = self
            .transfers
            .iter()
            .filter(|one| one.bytes_per_second > 0.0)
            .map(|one| {
                format!(
                    "{} {} {}/s",
                    one.transport,
                    one.direction,
                    amount(one.bytes_per_second)
                )
            })
            .collect();
        lines.push(format!(
            "transfers  {}",
            or(&busy.join("; "), "none in progress")
        ));
        lines
    }
}

fn transfers(before: &Page, page: &Page) -> Vec<Transfers> {
    let labels = ["transport", "direction"];
    let former = before.by_two(BODY_BYTES, labels);
    let seconds = page.at.duration_since(before.at).as_secs_f64();
    let now = page.by_two(BODY_BYTES, labels).into_iter();
    now.map(|(key, bytes)| {
        // A SuperLink that was restarted counts from nothing.
        let more = (bytes - former.get(&key).copied().unwrap_or_default()).max(0.0);
        let [transport, direction] = key;
        Transfers {
            transport,
            direction,
            bytes,
            bytes_per_second: if seconds > 0.0 { more / seconds } else { 0.0 },
        }
    })
    .collect()
}

/// Those that there are. An older SuperLink may not tell.
fn listed(numbers: &BTreeMap<String, f64>, nothing: &str) -> String {
    if numbers.is_empty() {
        return "not among the metrics".to_owned();
    }
    let list: Vec<_> = numbers
        .iter()
        .filter(|(_, number)| **number > 0.0)
        .map(|(state, number)| format!("{number} {state}"))
        .collect();
    or(&list.join(", "), nothing)
}

fn or(text: &str, nothing: &str) -> String {
    match text {
        "" => nothing.to_owned(),
        text => text.to_owned(),
    }
}

/// Bytes as people say them.
fn amount(bytes: f64) -> String {
    for (unit, size) in [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)] {
        if bytes >= size {
            return format!("{:.1} {unit}", bytes / size);
        }
    }
    format!("{bytes:.0} B")
}

const BODY_BYTES: &str = "flwr_quic_body_bytes_total";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PAGE: &str = "flwr_quic_nodes{state=\"online\"} 2\n\
        flwr_quic_instructions{state=\"working\"} 1\nflwr_quic_instructions{state=\"ready\"} 0\n\
        flwr_quic_round_duration_seconds_sum{kind=\"train\"} 6\nflwr_quic_round_duration_seconds_count{kind=\"train\"} 4\n\
        flwr_quic_body_bytes_total{transport=\"quic\",direction=\"sent\"} 5000000\n";

    #[test]
    fn figures_are_made_of_two_looks() {
        let before = Page::read(
            "flwr_quic_body_bytes_total{transport=\"quic\",direction=\"sent\"} 1000000\n",
        );
        let mut page = Page::read(PAGE);
        page.at = before.at + Duration::from_secs(2);
        let figures = Figures::of(&before, &page);
        assert_eq!(
            figures.lines(),
            [
                "nodes      2 online",
                "messages   1 working",
                "rounds     4 train, 1.50 s on average",
                "transfers  quic sent 2.0 MB/s",
            ]
        );
        let value = figures.as_json();
        assert_eq!(value["rounds"]["train"]["count"], 4.0);
        assert_eq!(value["transfers"][0]["bytes_per_second"], 2e6);
    }

    #[test]
    fn nothing_is_said_as_such() {
        let empty = Page::read("");
        let lines = Figures::of(&empty, &empty).lines();
        assert!(
            lines[0].ends_with("not among the metrics") && lines[3].ends_with("none in progress")
        );
        let alone = Page::read("flwr_quic_nodes{state=\"online\"} 0\n");
        let lines = Figures::of(&empty, &alone).lines();
        assert!(lines[0].ends_with("none online"));
    }
}

//! What can be asked of a running link: one JSON object a line.
//!
//! `{"down": true}`, `{"rate_mbit": 10}`, `{"loss_percent": 2}`, each with `"direction": "forward"` (side 0 to side
//! 1), `"backward"` or `"both"`; `{"readdress": {"side": 0, "address": "10.77.0.9"}}`; `{"stats": true}`.

use std::net::Ipv4Addr;

use serde::Deserialize;

use crate::direction::{Change, Rate};
use crate::loss::LossRate;

/// A request that makes sense.
#[derive(Debug, PartialEq)]
pub(crate) enum Request {
    Change(Directions, Change),
    Readdress(Readdress),
    Statistics,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Directions {
    Forward,
    Backward,
    #[default]
    Both,
}

impl Directions {
    /// Whether the direction from this side is meant.
    pub(crate) fn include(self, side: usize) -> bool {
        match self {
            Self::Forward => side == 0,
            Self::Backward => side == 1,
            Self::Both => true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Readdress {
    pub(crate) side: Side,
    pub(crate) address: Ipv4Addr,
}

/// 0 or 1.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "usize")]
pub(crate) struct Side(usize);

impl Side {
    pub(crate) fn index(self) -> usize {
        self.0
    }
}

impl TryFrom<usize> for Side {
    type Error = &'static str;

    fn try_from(side: usize) -> Result<Self, Self::Error> {
        if side < 2 {
            Ok(Self(side))
        } else {
            Err("a side is 0 or 1")
        }
    }
}

/// The error is a sentence. A new loss keeps the bursts of `loss`.
pub(crate) fn parse(line: &str, loss: LossRate) -> Result<Request, String> {
    let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let rate = line
        .rate_mbit
        .map(|mbit| Rate::from_mbit(mbit).ok_or_else(|| format!("rate_mbit cannot be {mbit}")));
    let loss = line.loss_percent.map(|percent| {
        loss.with_percent(percent)
            .map_err(|error| error.to_string())
    });
    let changes = [
        line.down.map(Change::Down),
        rate.transpose()?.map(Change::Rate),
        loss.transpose()?.map(Change::Loss),
    ];
    let changes = changes
        .into_iter()
        .flatten()
        .map(|change| Request::Change(line.direction, change));
    let others = [
        line.readdress.map(Request::Readdress),
        line.stats.then_some(Request::Statistics),
    ];
    let mut requests = changes.chain(others.into_iter().flatten());
    match (requests.next(), requests.next()) {
        (Some(request), None) => Ok(request),
        _ => Err("give one of down, rate_mbit, loss_percent, readdress, stats".to_owned()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    down: Option<bool>,
    rate_mbit: Option<f64>,
    loss_percent: Option<f64>,
    readdress: Option<Readdress>,
    #[serde(default)]
    stats: bool,
    #[serde(default)]
    direction: Directions,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Request, String> {
        parse(line, LossRate::new(1.0, 5.0).unwrap())
    }

    #[test]
    fn every_request_is_understood() {
        let rate = Rate::from_mbit(2.5).unwrap();
        let loss = LossRate::new(3.0, 5.0).unwrap();
        let new = Readdress {
            side: Side(1),
            address: Ipv4Addr::new(10, 77, 0, 9),
        };
        for (line, request) in [
            (
                r#"{"down": true, "direction": "both"}"#,
                Request::Change(Directions::Both, Change::Down(true)),
            ),
            (
                r#"{"down": false, "direction": "forward"}"#,
                Request::Change(Directions::Forward, Change::Down(false)),
            ),
            (
                r#"{"rate_mbit": 2.5}"#,
                Request::Change(Directions::Both, Change::Rate(rate)),
            ),
            (
                r#"{"loss_percent": 3, "direction": "backward"}"#,
                Request::Change(Directions::Backward, Change::Loss(loss)),
            ),
            (
                r#"{"readdress": {"side": 1, "address": "10.77.0.9"}}"#,
                Request::Readdress(new),
            ),
            (r#"{"stats": true}"#, Request::Statistics),
        ] {
            assert_eq!(parsed(line), Ok(request), "{line}");
        }
    }

    #[test]
    fn anything_else_is_an_error() {
        for line in [
            "",
            "up",
            "{}",
            "[]",
            r#"{"stats": false}"#,
            r#"{"fly": true}"#,
            r#"{"down": true, "rate_mbit": 1}"#,
            r#"{"down": true, "direction": "sideways"}"#,
            r#"{"rate_mbit": 0}"#,
            r#"{"loss_percent": 200}"#,
            r#"{"readdress": {"side": 2, "address": "10.77.0.9"}}"#,
            r#"{"readdress": {"side": 0, "address": "here"}}"#,
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}

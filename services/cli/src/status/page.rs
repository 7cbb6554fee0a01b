//! A page of metrics, fetched and read (Prometheus' text format, version 0.0.4).

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::address::Address;

/// What a page said, and when.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) at: Instant,
    samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Page {
    /// Asks for the page.
    ///
    /// # Errors
    /// In words.
    pub(super) async fn fetch(address: &Address, patience: Duration) -> Result<Self, String> {
        let fetched = timeout(patience, get(address)).await;
        let text = fetched
            .unwrap_or_else(|_| Err("no answer in time".into()))
            .map_err(|why| {
                format!("no metrics from {address}: {why}; is the SuperLink started with --metrics-address?")
            })?;
        Ok(Self::read(&text))
    }

    pub(super) fn read(text: &str) -> Self {
        Self {
            at: Instant::now(),
            samples: text.lines().filter_map(sample).collect(),
        }
    }

    /// The values of a metric by one of its labels, summed over the others.
    pub(super) fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.samples.iter().filter(|sample| sample.name == name) {
            if let Some(value) = sample.labels.get(label) {
                *sums.entry(value.clone()).or_default() += sample.value;
            }
        }
        sums
    }

    /// The values of a metric by two of its labels.
    pub(super) fn by_two(&self, name: &str, [one, other]: [&str; 2]) -> BTreeMap<[String; 2], f64> {
        let mut sums = BTreeMap::new();
        for sample in self.samples.iter().filter(|sample| sample.name == name) {
            if let (Some(a), Some(b)) = (sample.labels.get(one), sample.labels.get(other)) {
                *sums.entry([a.clone(), b.clone()]).or_default() += sample.value;
            }
        }
        sums
    }
}

async fn get(address: &Address) -> Result<String, String> {
    let tcp = TcpStream::connect((address.host.as_str(), address.port));
    let tcp = tcp.await.map_err(|error| error.to_string())?;
    let shaken = http1::handshake(TokioIo::new(tcp)).await;
    let (mut requests, served) = shaken.map_err(|error| error.to_string())?;
    let _driven = AbortOnDropHandle::new(tokio::spawn(served));
    let request = Request::get("/metrics")
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = requests.send_request(request).await;
    let response = response.map_err(|error| error.to_string())?;
    if !response.status().is_success() {
        return Err(format!("HTTP status {}", response.status()));
    }
    let body = Limited::new(response.into_body(), PAGE_BYTES_MAX);
    let body = body.collect().await.map_err(|error| error.to_string())?;
    String::from_utf8(body.to_bytes().into()).map_err(|error| error.to_string())
}

/// `name{label="value",...} number`; comments and what cannot be read are left out.
fn sample(line: &str) -> Option<Sample> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let (head, rest) = match line.find(['{', ' ']) {
        Some(end) => line.split_at(end),
        None => return None,
    };
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    Some(Sample {
        name: head.to_owned(),
        labels,
        value: rest.split_whitespace().next()?.parse().ok()?,
    })
}

/// Up to the closing brace, and what is behind it.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((labels, behind));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next()? {
                (end, '"') => break end,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.trim().to_owned(), value);
        rest = &quoted[end + 1..];
    }
}

/// Ten thousand series.
const PAGE_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_label() {
        let page = Page::read(
            "# TYPE nodes gauge\nnodes{state=\"online\"} 2\nnodes{state=\"offline\"} 1\n\
             bytes{transport=\"quic\",direction=\"sent\"} 1e3\nbytes{transport=\"grpc\",direction=\"sent\"} 24\nup 1\n",
        );
        let nodes = page.by("nodes", "state");
        assert_eq!(nodes.get("online"), Some(&2.0));
        assert_eq!(page.by("bytes", "direction").get("sent"), Some(&1024.0));
        let both = page.by_two("bytes", ["transport", "direction"]);
        assert_eq!(
            both.get(&["quic".to_owned(), "sent".to_owned()]),
            Some(&1000.0)
        );
        assert!(page.by("up", "state").is_empty() && page.by("none", "state").is_empty());
    }

    #[test]
    fn odd_lines_are_read_or_left_out() {
        let odd = sample(r#"a{x="q\"uo}te\\", y="z"} 7 1700000000"#).unwrap();
        assert_eq!(odd.labels["x"], "q\"uo}te\\");
        assert_eq!((odd.labels["y"].as_str(), odd.value), ("z", 7.0));
        for junk in ["", "a", "a{", "a{x=1} 2", "a{x=\"1} 2", "a b", "# HELP a b"] {
            assert_eq!(sample(junk), None, "{junk}");
        }
    }
}

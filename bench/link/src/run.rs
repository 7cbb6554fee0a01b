//! `flwr-link run`: one connection, one transfer, one line of JSON.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde_json::json;
use tokio::time::{Instant, interval, timeout};

use crate::arrivals::Arrivals;
use crate::latency::{Latencies, milliseconds};
use crate::mover::{Choices, Direction, Done, FarEnd, Load, Mover, Way};
use crate::source::Source;
use crate::transport::Transport;
use crate::usage::{Kernel, Usage};
use crate::{Error, certificates, print};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    far: FarEnd,
    #[arg(long)]
    direction: Direction,
    #[arg(long, default_value_t = 8)]
    objects: u64,
    #[arg(long, value_name = "BYTES", default_value_t = 10 << 20)]
    object_bytes: u64,
    /// Objects under way at once; over TLS alone they follow each other
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    parallel: u16,
    #[command(flatten)]
    choices: Choices,
    /// Make a small call so often during the transfer, and 20 before it; 0 makes none
    #[arg(long, value_name = "MS", default_value_t = 0)]
    control_period_ms: u64,
    /// Connect, make a call and part before anything is measured
    #[arg(long)]
    again: bool,
    /// Move one object more before anything is measured
    #[arg(long)]
    warm_up: bool,
    /// Give the transfer up after this time, and report what has arrived
    #[arg(long, value_name = "S")]
    seconds_max: Option<u64>,
    /// Report when bytes of objects arrived here, or were confirmed
    #[arg(long)]
    arrivals: bool,
}

/// Connects, moves the objects and reports.
pub(crate) async fn run(options: &Options) -> Result<(), Error> {
    let control_period = Duration::from_millis(options.control_period_ms);
    if options.far.transport == Transport::Tls && !control_period.is_zero() {
        return Err(Error::NoControl);
    }
    let load = options.load();
    // What a process does once is not the transport's: the random bytes, and the seed of the generator that TLS draws
    // from, which takes about 30 ms.
    let (tls, source) = (certificates::client(&options.far.certs)?, Source::new());
    aws_lc_rs::rand::fill(&mut [0; 32]).map_err(io::Error::other)?;
    let way = Way::new(&options.far, &options.choices, tls, source)?;
    if options.again {
        way.connect().await?.heartbeat().await?;
    }
    let start = Instant::now();
    let mover = way.connect().await?;
    mover.heartbeat().await?;
    let first_answer = start.elapsed();
    if options.warm_up {
        let one = Load { objects: 1, ..load };
        mover.transfer(&one, &Done::default()).await?;
    }
    let idle = if control_period.is_zero() {
        Vec::new()
    } else {
        idle_latencies(&mover).await?
    };
    let begun = Usage::now()?;
    let patience = options
        .seconds_max
        .map_or(Duration::MAX, Duration::from_secs);
    let done = Done {
        arrivals: options.arrivals.then(Arrivals::begin).transpose()?,
        ..Done::default()
    };
    let transfer = timed(&mover, &load, &done, control_period, patience).await?;
    let bytes = done.bytes.load(Ordering::Relaxed);
    let seconds = transfer.took.as_secs_f64();
    print(&json!({
        "transport": options.far.transport.name(),
        "ttfb_ms": milliseconds(first_answer),
        "seconds": seconds,
        "bytes": bytes,
        "goodput_mbit": Duration::from_micros(8 * bytes).as_secs_f64() / seconds,
        "capped": transfer.is_capped,
        "arrivals": done.arrivals.as_ref().map(Arrivals::report),
        "usage": Usage::now()?.since(&begun),
        "control": (!control_period.is_zero()).then(|| json!({
            "idle": Latencies::of(idle),
            "loaded": Latencies::of(transfer.latencies),
        })),
        "tcp_congestion": mover.tcp_congestion().await?,
        "kernel": Kernel::now()?,
    }))?;
    Ok(())
}

impl Options {
    fn load(&self) -> Load {
        Load {
            direction: self.direction,
            objects: self.objects,
            object_bytes: self.object_bytes,
            parallel: self.parallel.into(),
        }
    }
}

/// What became of a transfer.
struct Transfer {
    took: Duration,
    is_capped: bool,
    latencies: Vec<Duration>,
}

/// One call after the other, with nothing else on the connection.
async fn idle_latencies(mover: &Mover) -> Result<Vec<Duration>, Error> {
    let mut latencies = Vec::new();
    for _ in 0..IDLE_CALLS {
        latencies.push(heartbeat(mover, Instant::now()).await?);
    }
    Ok(latencies)
}

/// The transfer, with small calls beside it.
async fn timed(
    mover: &Mover,
    load: &Load,
    done: &Done,
    control_period: Duration,
    patience: Duration,
) -> Result<Transfer, Error> {
    let start = Instant::now();
    let moving = async {
        match timeout(patience, mover.transfer(load, done)).await {
            Ok(moved) => moved.map(|()| false),
            Err(_elapsed) => Ok(true),
        }
    };
    tokio::pin!(moving);
    let mut latencies = Vec::new();
    let is_capped = if control_period.is_zero() {
        moving.await?
    } else {
        let mut ticks = interval(control_period);
        let mut calls = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(latency) = calls.next() => latencies.push(latency?),
                // A call that takes long holds up none of those after it.
                due = ticks.tick() => calls.push(heartbeat(mover, due)),
                moved = &mut moving => break moved?,
            }
        }
    };
    Ok(Transfer {
        took: start.elapsed(),
        is_capped,
        latencies,
    })
}

/// How long a call takes from when it was due.
async fn heartbeat(mover: &Mover, due: Instant) -> Result<Duration, Error> {
    mover.heartbeat().await?;
    Ok(due.elapsed())
}

const IDLE_CALLS: usize = 20;

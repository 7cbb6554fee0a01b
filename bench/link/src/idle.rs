//! `flwr-link idle`: many connections on which nothing happens.

use std::io;

use clap::Args;
use futures_util::stream::{StreamExt, TryStreamExt, iter};
use serde_json::json;
use tokio::time::Instant;

use crate::mover::{Choices, FarEnd, Mover, Way};
use crate::serve::end_of_stdin;
use crate::source::Source;
use crate::{Error, certificates, print};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    far: FarEnd,
    #[arg(long, value_name = "N")]
    connections: usize,
}

/// Opens the connections, makes one call on each, and holds them until stdin closes.
pub(crate) async fn idle(options: &Options) -> Result<(), Error> {
    let (tls, source) = (certificates::client(&options.far.certs)?, Source::new());
    aws_lc_rs::rand::fill(&mut [0; 32]).map_err(io::Error::other)?;
    let start = Instant::now();
    let connect = |_| async {
        let (tls, source) = (tls.clone(), source.clone());
        // Each is a client of its own, with no session of another.
        let way = Way::new(&options.far, &Choices::default(), tls, source)?;
        let mover = way.connect().await?;
        mover.heartbeat().await?;
        Ok::<_, Error>(mover)
    };
    let connecting = iter(0..options.connections).map(connect);
    let held: Vec<Mover> = connecting.buffer_unordered(AT_ONCE).try_collect().await?;
    print(&json!({
        "transport": options.far.transport.name(),
        "held": held.len(),
        "seconds": start.elapsed().as_secs_f64(),
    }))?;
    end_of_stdin().await;
    drop(held);
    Ok(())
}

/// Handshakes under way.
const AT_ONCE: usize = 32;

//! `flwr-link serve`: answers on one address until it is asked to end, then reports.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::Args;
use flwr_compat_grpc::f1::FleetF1;
use flwr_compat_grpc::{Buffers, CallerAuth, GrpcListener, Holds, Limits};
use flwr_transport::{Acceptor as _, Drain, MemoryBudget};
use flwr_transport_quic::tuning::Congestion;
use flwr_transport_quic::{Acceptor, Options as QuicOptions, Tuning, udp};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::arrivals::Arrivals;
use crate::handler::{Moved, Objects};
use crate::source::Source;
use crate::transport::{self, DEFAULT_SERVER_WINDOWS, Transport};
use crate::usage::{Kernel, Usage};
use crate::{Error, certificates, plain, print};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long)]
    transport: Transport,
    /// Address and port; port 0 is a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Directory of `flwr-link certs`
    #[arg(long, value_name = "DIRECTORY")]
    certs: PathBuf,
    /// Congestion controller of QUIC
    #[arg(long, value_name = "NAME", value_parser = transport::congestion)]
    congestion: Option<Congestion>,
    /// Hash what is pushed
    #[arg(long)]
    hash: bool,
    /// Report when bytes arrive: the longest silences, and how many in each tenth of a second
    #[arg(long)]
    arrivals: bool,
    /// Windows of gRPC as small as tonic has them
    #[arg(long)]
    default_windows: bool,
}

/// Serves until SIGTERM comes or stdin closes. Whoever is connected then is cut off.
pub(crate) async fn serve(options: &Options) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let moved = Arc::new(Moved {
        arrivals: options.arrivals.then(Arrivals::begin).transpose()?,
        ..Moved::default()
    });
    let (address, mut serving) = begin(options, &moved).await?;
    let begun = Usage::now()?;
    print(&json!({
        "ready": true,
        "transport": options.transport.name(),
        "address": address,
    }))?;
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = end_of_stdin() => {}
        ended = &mut serving => return ended.map_err(io::Error::other)?,
    }
    print(&json!({
        "final": true,
        "bytes_received": moved.received.load(Ordering::Relaxed),
        "bytes_sent": moved.sent.load(Ordering::Relaxed),
        "arrivals": moved.arrivals.as_ref().map(Arrivals::report),
        "usage": Usage::now()?.since(&begun),
        "kernel": Kernel::now()?,
    }))?;
    serving.abort();
    Ok(())
}

type Serving = JoinHandle<Result<(), Error>>;

async fn begin(options: &Options, moved: &Arc<Moved>) -> Result<(SocketAddr, Serving), Error> {
    let tls = certificates::server(&options.certs)?.config;
    let (source, moved) = (Source::new(), Arc::clone(moved));
    let handler = Arc::new(Objects {
        moved: Arc::clone(&moved),
        source: source.clone(),
        hash: options.hash,
    });
    let drain = Drain::new();
    Ok(match options.transport {
        Transport::Quic => {
            let quic = QuicOptions {
                // All of them come from one address.
                per_address_max: usize::MAX,
                tuning: transport::with(Tuning::accepting(), options.congestion),
                ..QuicOptions::default()
            };
            let acceptor = Acceptor::new(udp::bind(options.listen)?, tls, quic)?;
            let address = acceptor.local_addr();
            let serving = async move { Ok(acceptor.serve(handler, drain).await.map(drop)?) };
            (address, tokio::spawn(serving))
        }
        Transport::Grpc => {
            let tcp = TcpListener::bind(options.listen).await?;
            let dialect = FleetF1 {
                holds: Holds::default(),
            };
            let mut limits = Limits::default();
            if options.default_windows {
                limits.stream_window_bytes = DEFAULT_SERVER_WINDOWS.stream;
                limits.connection_window_bytes = DEFAULT_SERVER_WINDOWS.connection;
            }
            let buffers = Buffers::new(KEPT_BUFFER_BYTES, MemoryBudget::unbounded());
            let (tls, auth) = (Some(tls.into()), CallerAuth::none());
            let listener = GrpcListener::new(tcp, tls, auth, dialect, limits, buffers)?;
            let address = listener.local_addr();
            let serving = async move { Ok(listener.serve(handler, drain).await.map(drop)?) };
            (address, tokio::spawn(serving))
        }
        Transport::Tls => {
            let listener = TcpListener::bind(options.listen).await?;
            let address = listener.local_addr()?;
            let serving = async move { Ok(plain::serve(listener, &tls, source, moved).await?) };
            (address, tokio::spawn(serving))
        }
    })
}

/// A thread of its own waits, which nobody has to end.
pub(crate) async fn end_of_stdin() {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        while stdin.read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
        // Who waits may have gone.
        ended.send(()).ok();
    });
    end.await.ok();
}

/// As the SuperLink has it.
const KEPT_BUFFER_BYTES: usize = 256 << 20;

//! The end that asks, whatever carries it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};
use flwr_api::fleet::{Fleet, FleetClient, Heartbeat, ObjectState, PullObject, PushObject};
use flwr_api::{NodeId, RunId};
use flwr_certs::ClientTls;
use flwr_compat_grpc::client::Settings;
use flwr_compat_grpc::f1::ask::FleetAsker;
use flwr_compat_grpc::{Credentials, GrpcConnector};
use flwr_transport::{Connector as _, Current, DynCaller};
use flwr_transport_quic::tuning::Congestion;
use flwr_transport_quic::{Connector, Target, Tuning};
use futures_util::stream::{StreamExt, TryStreamExt, iter};
use tokio::time::Instant;

use crate::Error;
use crate::arrivals::Arrivals;
use crate::plain::Plain;
use crate::source::{Source, object_id};
use crate::transport::{self, DEFAULT_CLIENT_WINDOWS, Transport};

/// What to connect to, and how.
#[derive(Debug, Args)]
pub(crate) struct FarEnd {
    #[arg(long)]
    pub(crate) transport: Transport,
    /// Address and port of `flwr-link serve`
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) server: SocketAddr,
    /// Directory of `flwr-link certs`
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) certs: PathBuf,
}

/// What else there is to choose.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Choices {
    /// Congestion controller of QUIC
    #[arg(long, value_name = "NAME", value_parser = transport::congestion)]
    pub(crate) congestion: Option<Congestion>,
    /// Congestion control of TCP over TLS alone; without it, that of the network namespace
    #[arg(long, value_name = "NAME")]
    pub(crate) tcp_congestion: Option<String>,
    /// Windows of gRPC as small as tonic has them
    #[arg(long)]
    pub(crate) default_windows: bool,
}

/// Where objects go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    /// To the server
    Up,
    /// From the server
    Down,
}

/// What is moved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) direction: Direction,
    pub(crate) objects: u64,
    pub(crate) object_bytes: u64,
    /// How many objects are under way at once.
    pub(crate) parallel: usize,
}

/// Bytes that were confirmed, or that have arrived here.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) bytes: AtomicU64,
    /// When, if that was asked for.
    pub(crate) arrivals: Option<Arrivals>,
}

impl Done {
    pub(crate) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(arrivals) = &self.arrivals {
            arrivals.add(bytes);
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) enum Mover {
    Fleet(FleetClient, Source),
    Plain(Box<Plain>),
}

/// The way to a server, which connections are made by.
pub(crate) struct Way {
    carrier: Carrier,
    source: Source,
}

enum Carrier {
    Quic(Box<Connector<Fleet>>),
    Grpc(GrpcConnector<FleetAsker>),
    Tls {
        server: SocketAddr,
        congestion: Option<String>,
        tls: ClientTls,
    },
}

impl Way {
    pub(crate) fn new(
        far: &FarEnd,
        choices: &Choices,
        tls: ClientTls,
        source: Source,
    ) -> Result<Self, Error> {
        let (transport, server) = (far.transport, far.server);
        if choices.tcp_congestion.is_some() && transport != Transport::Tls {
            return Err(Error::NamespaceOnly);
        }
        let (host, port) = (server.ip().to_string(), server.port());
        let carrier = match transport {
            Transport::Quic => {
                let tuning = transport::with(Tuning::connecting(), choices.congestion);
                let target = Target { host, port };
                let connector = Connector::new(target, tls.config(), &tuning)?;
                Carrier::Quic(Box::new(connector))
            }
            Transport::Grpc => {
                let credentials = Credentials::none();
                let mut settings = Settings::default();
                if choices.default_windows {
                    settings.stream_window_bytes = DEFAULT_CLIENT_WINDOWS.stream;
                    settings.connection_window_bytes = DEFAULT_CLIENT_WINDOWS.connection;
                }
                let tls = Some(Current::new(tls));
                let connector = GrpcConnector::new(host, port, tls, credentials, FleetAsker);
                Carrier::Grpc(connector.with_settings(settings))
            }
            Transport::Tls => Carrier::Tls {
                server,
                congestion: choices.tcp_congestion.clone(),
                tls,
            },
        };
        Ok(Self { carrier, source })
    }

    pub(crate) async fn connect(&self) -> Result<Mover, Error> {
        let source = self.source.clone();
        let caller: Arc<dyn DynCaller<_>> = match &self.carrier {
            Carrier::Quic(connector) => Arc::new(connector.connect().await?),
            Carrier::Grpc(connector) => Arc::new(connector.connect().await?),
            Carrier::Tls {
                server,
                congestion,
                tls,
            } => {
                let congestion = congestion.as_deref();
                let plain = Plain::connect(*server, congestion, &tls.config(), source).await?;
                return Ok(Mover::Plain(Box::new(plain)));
            }
        };
        Ok(Mover::Fleet(FleetClient::new(caller), source))
    }
}

impl Mover {
    /// The congestion control of a TCP connection, where it is the connection's own.
    pub(crate) async fn tcp_congestion(&self) -> Result<Option<String>, Error> {
        Ok(match self {
            Self::Plain(plain) => Some(plain.congestion().await?),
            Self::Fleet(..) => None,
        })
    }

    /// The small call.
    pub(crate) async fn heartbeat(&self) -> Result<(), Error> {
        match self {
            Self::Plain(plain) => Ok(plain.heartbeat().await?),
            Self::Fleet(client, _) => {
                let call = Heartbeat {
                    node: NODE,
                    heartbeat_interval: 30.0,
                };
                let alive = client.heartbeat(call, deadline()).await?;
                alive.then_some(()).ok_or(Error::Refused)
            }
        }
    }

    /// Moves everything.
    pub(crate) async fn transfer(&self, load: &Load, done: &Done) -> Result<(), Error> {
        match self {
            Self::Plain(plain) => {
                let (objects, len) = (load.objects, load.object_bytes);
                match load.direction {
                    Direction::Up => plain.push(objects, len, done).await?,
                    Direction::Down => plain.pull(objects, len, done).await?,
                }
                Ok(())
            }
            Self::Fleet(client, source) => {
                let calls = iter(0..load.objects).map(|number| async move {
                    match load.direction {
                        Direction::Up => push(client, source, number, load, done).await,
                        Direction::Down => pull(client, number, load, done).await,
                    }
                });
                calls.buffer_unordered(load.parallel).try_collect().await
            }
        }
    }
}

async fn push(
    client: &FleetClient,
    source: &Source,
    number: u64,
    load: &Load,
    done: &Done,
) -> Result<(), Error> {
    let call = PushObject {
        node: NODE,
        run: RUN,
        object: object_id(number, load.object_bytes),
    };
    let body = source.body(load.object_bytes);
    let stored = client.push_object(call, body, deadline()).await?;
    done.add(load.object_bytes);
    stored.then_some(()).ok_or(Error::Refused)
}

async fn pull(client: &FleetClient, number: u64, load: &Load, done: &Done) -> Result<(), Error> {
    let call = PullObject {
        node: NODE,
        run: RUN,
        object: object_id(number, load.object_bytes),
        wait: Duration::ZERO,
    };
    let (state, body) = client.pull_object(call, deadline()).await?;
    let (ObjectState::Available, Some(mut body)) = (state, body) else {
        return Err(Error::Refused);
    };
    let mut left = load.object_bytes;
    while let Some(piece) = body.next().await {
        let bytes = piece?.len() as u64;
        left = left.checked_sub(bytes).ok_or(Error::Refused)?;
        done.add(bytes);
    }
    (left == 0).then_some(()).ok_or(Error::Refused)
}

/// Whoever started this has a deadline of its own.
fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

const NODE: NodeId = NodeId(7);
const RUN: RunId = RunId(7);

//! Metrics for Prometheus, and whether this process is up and of use, over plain HTTP.
//!
//! Whoever can reach the port can read the figures, which name nobody. A connection carries one request and is closed
//! soon, whatever comes over it. What is not counted when it happens is looked up when somebody asks: by the daemon
//! ([`Watched`]), and in files and the system ([`Machine`]).

mod machine;
mod names;
mod watched;

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use flwr_superexec::metrics as superexec;
use flwr_superlink::metrics as superlink;
use flwr_supernode::metrics as supernode;
use flwr_transport::{Drain, metrics as calls};
use flwr_transport_quic::metrics as quic;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use metrics::gauge;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinSet, spawn_blocking},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tracing::{debug, info};

use crate::{
    address::Address,
    exit::Exit,
    listen::{Binder, Listener},
};

pub(crate) use machine::Machine;
pub(crate) use names::{CERTIFICATE, REFUSED};
pub(crate) use watched::{Watched, WatchedLauncher, WatchedNode};

/// Serves what this process counts.
#[derive(Debug)]
pub(crate) struct Exporter {
    listener: Listener,
    recorded: PrometheusHandle,
    machine: Arc<Machine>,
}

/// What answers are made of. Cheap to clone.
#[derive(Clone)]
struct Source {
    recorded: PrometheusHandle,
    machine: Arc<Machine>,
    daemon: Arc<dyn Watched>,
    drain: Drain,
}

impl Exporter {
    /// Takes the port, and counts from now on; once a process. Nothing without an address.
    ///
    /// # Errors
    /// When the address is none, or cannot be listened on.
    pub(crate) async fn bind(
        address: Option<&str>,
        machine: Machine,
        binder: &mut Binder,
    ) -> Result<Option<Self>, Exit> {
        let Some(address) = address.map(Address::parse).transpose()? else {
            return Ok(None);
        };
        let listener = binder.bind(address, "--metrics-address").await?;
        let recorded = record().map_err(|error| Exit::because(&error))?;
        machine.describe();
        info!("Serving metrics on http://{}/metrics", listener.address);
        Ok(Some(Self {
            listener,
            recorded,
            machine: Arc::new(machine),
        }))
    }

    /// Serves until it is dropped: that a process drains is worth knowing.
    pub(crate) async fn serve(self, daemon: Arc<dyn Watched>, drain: Drain) {
        let source = Source {
            recorded: self.recorded,
            machine: self.machine,
            daemon,
            drain,
        };
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut serving = JoinSet::new();
        for socket in self.listener.sockets {
            serving.spawn(accept(socket, Arc::clone(&connections), source.clone()));
        }
        let mut ticks = interval(UPKEEP_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // What was observed is kept one by one until it is put into classes.
            source.recorded.run_upkeep();
        }
    }
}

fn record() -> Result<PrometheusHandle, BuildError> {
    let classes: [(_, &[f64]); 4] = [
        (calls::CALL_SECONDS, &calls::CALL_SECONDS_BOUNDS),
        (quic::RTT_SECONDS, &quic::RTT_SECONDS_BOUNDS),
        (quic::WINDOW_BYTES, &quic::WINDOW_BYTES_BOUNDS),
        (superlink::ROUND_SECONDS, &superlink::ROUND_SECONDS_BOUNDS),
    ];
    let mut builder = PrometheusBuilder::new();
    for (name, bounds) in classes {
        builder = builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds)?;
    }
    let recorded = builder.install_recorder()?;
    calls::describe();
    quic::describe();
    superlink::describe();
    supernode::describe();
    superexec::describe();
    names::describe();
    Ok(recorded)
}

async fn accept(socket: TcpListener, connections: Arc<Semaphore>, source: Source) {
    let mut answering = JoinSet::new();
    loop {
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "No connection for metrics");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while answering.try_join_next().is_some() {}
        // One too many is closed at once.
        if let Ok(permit) = Arc::clone(&connections).try_acquire_owned() {
            let source = source.clone();
            answering.spawn(async move {
                // Who is slow, or speaks something else, is let go.
                let _ = timeout(REQUEST_TIME_MAX, converse(stream, source)).await;
                drop(permit);
            });
        }
    }
}

async fn converse(stream: TcpStream, source: Source) -> hyper::Result<()> {
    let answer = service_fn(|request: Request<hyper::body::Incoming>| {
        let source = source.clone();
        async move { Ok::<_, Infallible>(source.respond(request.method(), request.uri().path()).await) }
    });
    let mut http = http1::Builder::new();
    http.header_read_timeout(None)
        .max_buf_size(REQUEST_BYTES_MAX)
        .keep_alive(false);
    http.serve_connection(TokioIo::new(stream), answer).await
}

impl Source {
    async fn respond(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "GET is all there is\n".into(),
            );
        }
        match path {
            "/metrics" => match self.page().await {
                Ok(page) => plain(StatusCode::OK, page),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            "/healthz" => plain(StatusCode::OK, "ok\n".into()),
            "/readyz" => match self.check().await {
                Ok(()) => plain(StatusCode::OK, "ready\n".into()),
                Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            },
            _ => plain(
                StatusCode::NOT_FOUND,
                "there are /metrics, /healthz and /readyz\n".into(),
            ),
        }
    }

    /// All figures, those included that are looked up now.
    async fn page(&self) -> io::Result<String> {
        let (checked, ()) = tokio::join!(self.check(), self.daemon.survey());
        gauge!(names::READY).set(if checked.is_ok() { 1.0 } else { 0.0 });
        let (recorded, machine) = (self.recorded.clone(), Arc::clone(&self.machine));
        // Thousands of connections are asked one after the other.
        let page = spawn_blocking(move || {
            machine.survey();
            quic::sample();
            recorded.render()
        });
        page.await.map_err(io::Error::other)
    }

    /// Whether this process is of use.
    async fn check(&self) -> Result<(), String> {
        if self.drain.is_requested() {
            return Err("this process is shutting down".into());
        }
        self.daemon.check().await
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}

/// Of Prometheus' text format, which any text may have.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// How many may ask at once.
const CONNECTIONS_MAX: usize = 8;
/// How long asking and answering may take.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
const REQUEST_BYTES_MAX: usize = 16 << 10;
/// How often what was observed is put into classes, if nobody asks.
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);
/// Until a system that has no room for a connection has some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use flwr_transport::Standing;
    use futures_util::future::{BoxFuture, FutureExt as _, ready};

    use super::*;

    struct Daemon(Standing);

    impl Watched for Daemon {
        fn survey(&self) -> BoxFuture<'_, ()> {
            ready(()).boxed()
        }

        fn check(&self) -> BoxFuture<'_, Result<(), String>> {
            ready(self.0.check()).boxed()
        }
    }

    async fn asked(source: &Source) -> (u16, String) {
        let answer = source.respond(&Method::GET, "/readyz").await;
        let status = answer.status().as_u16();
        let Ok(body) = http_body_util::BodyExt::collect(answer.into_body()).await;
        let text = String::from_utf8(body.to_bytes().to_vec());
        (status, text.expect("answers are text"))
    }

    #[tokio::test]
    async fn who_is_of_no_use_says_why() {
        let (standing, drain) = (Standing::not_yet("nobody is there"), Drain::new());
        let source = Source {
            recorded: PrometheusBuilder::new().build_recorder().handle(),
            machine: Arc::new(Machine::new("test")),
            daemon: Arc::new(Daemon(standing.clone())),
            drain: drain.clone(),
        };
        assert_eq!(asked(&source).await, (503, "nobody is there\n".into()));
        standing.good();
        assert_eq!(asked(&source).await, (200, "ready\n".into()));
        standing.bad("it broke");
        assert_eq!(asked(&source).await, (503, "it broke\n".into()));
        standing.good();
        drain.begin();
        let (status, why) = asked(&source).await;
        assert_eq!(status, 503);
        assert!(why.contains("shutting down"), "{why}");
    }
}

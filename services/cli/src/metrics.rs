//! Metrics for Prometheus, over plain HTTP.
//!
//! Whoever can reach the port can read the figures, which name nobody. A connection carries one request and is closed
//! soon, whatever comes over it.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
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

/// Serves what this process counts.
#[derive(Debug)]
pub(crate) struct Exporter {
    listener: Listener,
    recorded: PrometheusHandle,
}

impl Exporter {
    /// Takes the port, and counts from now on; once a process. Nothing without an address.
    ///
    /// # Errors
    /// When the address is none, or cannot be listened on.
    pub(crate) async fn bind(
        address: Option<&str>,
        binder: &mut Binder,
    ) -> Result<Option<Self>, Exit> {
        let Some(address) = address.map(Address::parse).transpose()? else {
            return Ok(None);
        };
        let listener = binder.bind(address, "--metrics-address").await?;
        let recorded = record().map_err(|error| Exit::because(&error))?;
        info!("Serving metrics on http://{}/metrics", listener.address);
        Ok(Some(Self { listener, recorded }))
    }

    /// Serves until the drain is asked.
    pub(crate) async fn serve(self, drain: Drain) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut serving = JoinSet::new();
        for socket in self.listener.sockets {
            serving.spawn(accept(
                socket,
                Arc::clone(&connections),
                self.recorded.clone(),
            ));
        }
        let mut ticks = interval(UPKEEP_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = drain.requested() => return,
                // What was observed is kept one by one until it is put into classes.
                _ = ticks.tick() => self.recorded.run_upkeep(),
            }
        }
    }
}

fn record() -> Result<PrometheusHandle, BuildError> {
    let classes: [(_, &[f64]); 3] = [
        (calls::CALL_SECONDS, &calls::CALL_SECONDS_BOUNDS),
        (quic::RTT_SECONDS, &quic::RTT_SECONDS_BOUNDS),
        (quic::WINDOW_BYTES, &quic::WINDOW_BYTES_BOUNDS),
    ];
    let mut builder = PrometheusBuilder::new();
    for (name, bounds) in classes {
        builder = builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds)?;
    }
    let recorded = builder.install_recorder()?;
    calls::describe();
    quic::describe();
    Ok(recorded)
}

async fn accept(socket: TcpListener, connections: Arc<Semaphore>, recorded: PrometheusHandle) {
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
            let recorded = recorded.clone();
            answering.spawn(async move {
                // Who is slow, or speaks something else, is let go.
                let _ = timeout(REQUEST_TIME_MAX, converse(stream, recorded)).await;
                drop(permit);
            });
        }
    }
}

async fn converse(stream: TcpStream, recorded: PrometheusHandle) -> hyper::Result<()> {
    let answer = service_fn(|request: Request<hyper::body::Incoming>| {
        let recorded = recorded.clone();
        async move {
            Ok::<_, Infallible>(respond(request.method(), request.uri().path(), recorded).await)
        }
    });
    let mut http = http1::Builder::new();
    http.header_read_timeout(None)
        .max_buf_size(REQUEST_BYTES_MAX)
        .keep_alive(false);
    http.serve_connection(TokioIo::new(stream), answer).await
}

async fn respond(method: &Method, path: &str, recorded: PrometheusHandle) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return plain(
            StatusCode::METHOD_NOT_ALLOWED,
            "GET is all there is\n".into(),
        );
    }
    match path {
        "/metrics" => {
            // Thousands of connections are asked one after the other.
            let page = spawn_blocking(move || {
                quic::sample();
                recorded.render()
            });
            match page.await.map_err(io::Error::other) {
                Ok(page) => plain(StatusCode::OK, page),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            }
        }
        "/healthz" => plain(StatusCode::OK, "ok\n".into()),
        _ => plain(
            StatusCode::NOT_FOUND,
            "there are /metrics and /healthz\n".into(),
        ),
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

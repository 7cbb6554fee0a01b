//! What is logged of whom the accepting end refuses.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flwr_transport::conformance::{Ask, Service, Toy};
use flwr_transport::{Acceptor as _, Call, Caller as _, Code, Connector as _, Drain, Status};
use flwr_transport_quic::{Caller, Connector, Options, Tuning};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::DefaultGuard;

use crate::counters::Counters;
use crate::support::{Site, listen};

/// What this thread logs, from INFO. A test and all that it starts run on one thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn start() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::INFO)
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// Lines about refusals, without the address of the peer, which they all have.
    fn refusals(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap();
        let lines = str::from_utf8(&bytes).unwrap().lines().map(str::trim);
        let refusals = lines.filter(|line| line.contains("refused"));
        let without_peer = |line: &str| {
            let (before, peer) = line.split_once(" peer=").unwrap();
            let (peer, after) = peer.split_once(' ').unwrap();
            let peer: SocketAddr = peer.parse().unwrap();
            assert!(peer.ip().is_loopback(), "{line}");
            format!("{before} {after}")
        };
        refusals.map(without_peer).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connector to an acceptor with these options, for as long as the handle is kept.
fn serve(options: Options) -> (Connector<Toy>, AbortOnDropHandle<()>) {
    let site = Site::get();
    let acceptor = listen::<Toy>(site, options);
    let target = site.target(&acceptor);
    let serving = tokio::spawn(async move {
        let served = acceptor.serve(Arc::new(Service::default()), Drain::new());
        served.await.unwrap();
    });
    let connector = Connector::new(target, &site.anonymous(), &Tuning::connecting());
    (connector.unwrap(), AbortOnDropHandle::new(serving))
}

async fn refused(caller: &Caller<Toy>, ask: Ask) -> Code {
    let call = Call::new(ask, Instant::now() + SOON);
    caller.call(call).await.unwrap_err().code
}

#[tokio::test]
async fn refused_calls_are_logged_until_there_are_too_many() {
    let (log, _logging) = Log::start();
    let (connector, _serving) = serve(Options {
        admit: Arc::new(|_| Err(Status::new(Code::Unauthenticated, "nobody is let in today"))),
        ..Options::default()
    });
    let line = "WARN call refused method=flwr.toy/* why=\"nobody is let in today\"";
    let caller = connector.connect().await.unwrap();
    for calls in 1..=30 {
        let code = refused(&caller, Ask::Echo("hello".into())).await;
        assert_eq!(code, Code::Unauthenticated);
        assert_eq!(log.refusals(), vec![line; calls.min(10)]);
    }
    let another = connector.connect().await.unwrap();
    refused(&another, Ask::Echo("hello".into())).await;
    assert_eq!(log.refusals(), vec![line; 11]);
}

#[tokio::test]
async fn what_the_service_refuses_is_logged_and_what_ends_is_not() {
    let (log, _logging) = Log::start();
    let (connector, _serving) = serve(Options::default());
    let caller = connector.connect().await.unwrap();
    for code in Code::ALL {
        let status = Status::new(code, "as asked");
        refused(&caller, Ask::Fail(status)).await;
    }
    let ended = [Code::Cancelled, Code::DeadlineExceeded];
    let expected = Code::ALL.iter().filter(|code| !ended.contains(code));
    let expected = expected.map(|code| match code {
        Code::Unauthenticated => {
            "WARN call refused method=flwr.toy/Fail why=\"as asked\"".to_owned()
        }
        _ => format!("INFO call refused method=flwr.toy/Fail code={code:?} why=\"as asked\""),
    });
    assert_eq!(log.refusals(), expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_refused_connection_is_logged() {
    let (log, _logging) = Log::start();
    let mut counters = Counters::start();
    let (connector, _serving) = serve(Options {
        identify: Arc::new(|_| Err("nobody is let in today".into())),
        ..Options::default()
    });
    // It connects before it learns of the refusal.
    let caller = connector.connect().await.unwrap();
    refused(&caller, Ask::Echo("hello".into())).await;
    counters
        .reaches("flwr_quic_connections_refused_total{unproved}", 1)
        .await;
    let line = "WARN connection refused why=\"nobody is let in today\"";
    assert_eq!(log.refusals(), [line]);
}

const SOON: Duration = Duration::from_secs(15);

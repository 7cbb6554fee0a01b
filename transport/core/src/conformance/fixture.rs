//! One pair with a service behind it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{Answer, Ask, Counter, Harness, Service, Setup, Tick, Toy};
use crate::body::Body;
use crate::call::{Call, EventStream, Reply, Tail};
use crate::drain::Drain;
use crate::peer::Identity;
use crate::serve::{Acceptor, Caller, Connector, Drained, ServeError};
use crate::status::Status;

/// A served acceptor and one connection to it. Dropping it ends the serving.
pub(super) struct Fixture<H: Harness> {
    pub(super) connector: H::Connector,
    pub(super) caller: <H::Connector as Connector<Toy>>::Caller,
    pub(super) service: Arc<Service>,
    pub(super) drain: Drain,
    pub(super) serving: AbortOnDropHandle<Result<Drained, ServeError>>,
    pub(super) addr: std::net::SocketAddr,
}

impl<H: Harness> Fixture<H> {
    pub(super) async fn start(harness: &H) -> Self {
        Self::start_with(
            harness,
            Setup {
                identity: identity(harness),
                grace: PATIENCE,
            },
        )
        .await
    }

    pub(super) async fn start_with(harness: &H, setup: Setup) -> Self {
        let (connector, acceptor) = harness.pair(setup).await;
        let service = Arc::new(Service::default());
        let drain = Drain::new();
        let addr = acceptor.local_addr();
        let serving = tokio::spawn(acceptor.serve(Arc::clone(&service), drain.clone()));
        let caller = soon(connector.connect()).await.expect("a connection");
        Self {
            connector,
            caller,
            service,
            drain,
            serving: AbortOnDropHandle::new(serving),
            addr,
        }
    }

    pub(super) async fn call(&self, ask: Ask) -> Result<Reply<Toy>, Status> {
        self.caller.call(call(ask)).await
    }

    /// Makes a call with a body.
    pub(super) async fn send(&self, ask: Ask, body: Body) -> Result<Reply<Toy>, Status> {
        self.caller.call(call(ask).with_body(body)).await
    }

    /// Makes a call that must be answered, and answered with a body.
    pub(super) async fn fetch(&self, ask: Ask) -> Body {
        into_body(self.call(ask).await.expect("an answer"))
    }

    /// Makes a call that must be answered with events.
    pub(super) async fn subscribe(&self, ask: Ask) -> EventStream<Tick> {
        match self.call(ask).await.expect("an answer").tail {
            Tail::Events(events) => events,
            other => panic!("events were asked for and {other:?} came"),
        }
    }

    /// Makes a call whose answer is known.
    pub(super) async fn echo(&self) {
        let reply = self.call(Ask::Echo("hello".into())).await;
        let response = reply.expect("an answer").response;
        assert_eq!(response, Answer::Echo("hello".into()));
    }

    /// Waits until `counter` stands still while the connection answers other calls.
    pub(super) async fn settles(&self, counter: &Counter) -> u64 {
        soon(async {
            loop {
                let before = counter.value();
                for _ in 0..CALLS_WHILE_SETTLING {
                    self.echo().await;
                }
                if counter.value() == before {
                    return before;
                }
            }
        })
        .await
    }

    /// Asks for the drain and waits for the end of serving.
    pub(super) async fn drained(self) -> Drained {
        self.drain.begin();
        self.served().await
    }

    /// Waits for the end of serving.
    pub(super) async fn served(self) -> Drained {
        let served = soon(self.serving).await.expect("serving does not panic");
        served.expect("serving does not fail")
    }
}

/// A call whose deadline no working transport reaches.
pub(super) fn call(ask: Ask) -> Call<Toy> {
    Call::new(ask, Instant::now() + 3 * PATIENCE)
}

pub(super) fn identity(harness: &impl Harness) -> Identity {
    let first = harness.identities().into_iter().next();
    first.expect("a transport proves at least one kind of identity")
}

pub(super) fn into_body(reply: Reply<Toy>) -> Body {
    match reply.tail {
        Tail::Body(body) => body,
        other => panic!("a body was asked for and {other:?} came"),
    }
}

/// What must happen, and soon.
///
/// # Panics
/// If it does not.
pub(super) async fn soon<T>(awaited: impl Future<Output = T>) -> T {
    let awaited = tokio::time::timeout(PATIENCE, awaited).await;
    awaited.expect("what must happen happens in time")
}

/// Longer than a machine under load needs for anything small.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Round trips in which a writer that is free to write writes something.
const CALLS_WHILE_SETTLING: u32 = 32;

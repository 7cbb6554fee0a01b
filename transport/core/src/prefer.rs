//! One of two transports to the same server: the better one where it gets through.
//!
//! While the other one carries calls, the better one is tried again from time to time. Once it gets
//! through, the connection over the other one counts as over: it takes no more calls, and those under
//! way are finished. With [`Redial`](crate::Redial) on top, the next call goes over the better one.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use crate::call::{Call, Protocol, Reply};
use crate::peer::Peer;
use crate::serve::{Caller, Closed, ConnectError, Connector};
use crate::status::Status;

/// Connects over `A` where that gets through, else over `B`.
#[derive(Debug)]
pub struct Prefer<P, A, B> {
    better: Arc<A>,
    other: B,
    patience: Duration,
    try_again: Duration,
    _protocol: PhantomData<fn() -> P>,
}

/// A connection over either.
#[derive(Debug)]
pub enum Preferred<A, B> {
    /// Over the better one.
    Better(A),
    /// Over the other one, until the better one gets through.
    Other(Meanwhile<B>),
}

/// A connection that is used until there is a better one.
#[derive(Debug)]
pub struct Meanwhile<B> {
    caller: B,
    superseded: CancellationToken,
    _probe: AbortOnDropHandle<()>,
}

impl<P, A, B> Prefer<P, A, B> {
    /// Gives `better` as long as `patience` to connect, and tries it again every `try_again` while
    /// `other` has to do.
    pub fn new(better: A, other: B, patience: Duration, try_again: Duration) -> Self {
        Self {
            better: Arc::new(better),
            other,
            patience,
            try_again,
            _protocol: PhantomData,
        }
    }
}

impl<P: Protocol, A: Connector<P>, B: Connector<P>> Connector<P> for Prefer<P, A, B> {
    type Caller = Preferred<A::Caller, B::Caller>;

    async fn connect(&self) -> Result<Self::Caller, ConnectError> {
        let better = timeout(self.patience, self.better.connect()).await;
        let why = match better {
            Ok(Ok(caller)) => return Ok(Preferred::Better(caller)),
            Ok(Err(error)) if !error.retryable => return Err(error),
            Ok(Err(error)) => error.message,
            Err(_elapsed) => format!("no answer within {} s", self.patience.as_secs()),
        };
        let caller = self.other.connect().await?;
        warn!(
            why,
            "the preferred transport does not get through: going on over {}, and trying again every {} s",
            caller.peer().transport,
            self.try_again.as_secs()
        );
        let superseded = CancellationToken::new();
        let probe = probe::<P, A>(Arc::clone(&self.better), self.try_again, superseded.clone());
        Ok(Preferred::Other(Meanwhile {
            caller,
            superseded,
            _probe: AbortOnDropHandle::new(tokio::spawn(probe)),
        }))
    }
}

/// Tries the better transport until it gets through.
async fn probe<P: Protocol, A: Connector<P>>(
    better: Arc<A>,
    period: Duration,
    superseded: CancellationToken,
) {
    loop {
        tokio::time::sleep(period).await;
        match better.connect().await {
            Ok(caller) => {
                caller.close("the way is open");
                info!("the preferred transport gets through again: changing to it");
                superseded.cancel();
                return;
            }
            Err(error) => debug!(%error, "the preferred transport still does not get through"),
        }
    }
}

impl<P: Protocol, A: Caller<P>, B: Caller<P>> Caller<P> for Preferred<A, B> {
    fn peer(&self) -> &Peer {
        match self {
            Self::Better(caller) => caller.peer(),
            Self::Other(meanwhile) => meanwhile.caller.peer(),
        }
    }

    async fn call(&self, call: Call<P>) -> Result<Reply<P>, Status> {
        match self {
            Self::Better(caller) => caller.call(call).await,
            Self::Other(meanwhile) => meanwhile.caller.call(call).await,
        }
    }

    async fn closed(&self) -> Closed {
        match self {
            Self::Better(caller) => caller.closed().await,
            Self::Other(meanwhile) => tokio::select! {
                biased;
                closed = meanwhile.caller.closed() => closed,
                () = meanwhile.superseded.cancelled() => Closed::Here("there is a better way"),
            },
        }
    }

    fn close(&self, reason: &'static str) {
        match self {
            Self::Better(caller) => caller.close(reason),
            Self::Other(meanwhile) => meanwhile.caller.close(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::time::Instant;

    use super::*;
    use crate::conformance::{Answer, Ask, Service, Toy};
    use crate::drain::Drain;
    use crate::memory;
    use crate::peer::{AccountId, Identity};
    use crate::serve::Acceptor as _;

    const PATIENCE: Duration = Duration::from_secs(3);
    const PERIOD: Duration = Duration::from_secs(600);

    /// A way that can be blocked.
    #[derive(Clone, Debug)]
    struct Way {
        inner: memory::Connector<Toy>,
        is_blocked: Arc<AtomicBool>,
        says_why: bool,
    }

    impl Connector<Toy> for Way {
        type Caller = memory::Caller<Toy>;

        async fn connect(&self) -> Result<Self::Caller, ConnectError> {
            match (self.is_blocked.load(Ordering::Relaxed), self.says_why) {
                (false, _) => self.inner.connect().await,
                (true, false) => std::future::pending().await,
                (true, true) => Err(ConnectError {
                    retryable: false,
                    message: "wrong certificate".into(),
                }),
            }
        }
    }

    fn way(name: &str) -> Way {
        let (inner, acceptor) = memory::pair(memory::Options {
            acceptor_identity: Identity::Account(AccountId(name.into())),
            ..memory::Options::default()
        });
        tokio::spawn(acceptor.serve(Arc::new(Service::default()), Drain::new()));
        Way {
            inner,
            is_blocked: Arc::default(),
            says_why: false,
        }
    }

    fn prefer(better: &Way, other: &Way) -> Prefer<Toy, Way, Way> {
        Prefer::new(better.clone(), other.clone(), PATIENCE, PERIOD)
    }

    async fn goes_over(caller: &impl Caller<Toy>) -> String {
        let deadline = Instant::now() + PATIENCE;
        let reply = caller
            .call(Call::new(Ask::Echo("x".into()), deadline))
            .await;
        assert_eq!(reply.unwrap().response, Answer::Echo("x".into()));
        match &caller.peer().identity {
            Identity::Account(account) => account.0.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_better_way_is_taken_when_it_is_open() {
        let caller = prefer(&way("better"), &way("other"))
            .connect()
            .await
            .unwrap();
        assert_eq!(goes_over(&caller).await, "better");
    }

    #[tokio::test(start_paused = true)]
    async fn the_other_way_does_until_the_better_one_opens() {
        let (better, other) = (way("better"), way("other"));
        better.is_blocked.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        let caller = prefer(&better, &other).connect().await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), PATIENCE.as_secs());
        assert_eq!(goes_over(&caller).await, "other");
        let waited = timeout(PERIOD / 2, caller.closed()).await;
        assert!(waited.is_err(), "{waited:?}");
        better.is_blocked.store(false, Ordering::Relaxed);
        let closed = timeout(PERIOD, caller.closed()).await;
        assert_eq!(closed, Ok(Closed::Here("there is a better way")));
        // What is under way goes on.
        assert_eq!(goes_over(&caller).await, "other");
        let caller = prefer(&better, &other).connect().await.unwrap();
        assert_eq!(goes_over(&caller).await, "better");
    }

    #[tokio::test(start_paused = true)]
    async fn what_would_fail_on_any_way_is_an_error() {
        let (mut better, other) = (way("better"), way("other"));
        better.says_why = true;
        better.is_blocked.store(true, Ordering::Relaxed);
        let refused = prefer(&better, &other).connect().await.unwrap_err();
        assert_eq!(refused.message, "wrong certificate");
    }
}

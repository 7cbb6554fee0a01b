//! The task that connects, and what it shares with the calls that wait for it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::LinkState;
use super::policy::{Backoff, Bounds, Policy, Tries};
use crate::call::Protocol;
use crate::peer::Peer;
use crate::serve::{Caller, Closed, ConnectError, Connector};

/// What the keeper and the calls share.
pub(super) struct Link<C> {
    now: watch::Sender<Now<C>>,
    states: watch::Sender<LinkState>,
    /// Wakes a keeper that has nothing to do.
    demand: Notify,
    waiting: AtomicUsize,
    /// Whether this connection has carried an answer.
    proved: AtomicBool,
    pub(super) closing: CancellationToken,
    closed_for: OnceLock<&'static str>,
    /// Who was reached first.
    pub(super) peer: OnceLock<Peer>,
    pub(super) random: Box<dyn Fn() -> f64 + Send + Sync>,
}

/// The connection, and how often there was none to be had.
struct Now<C> {
    caller: Option<Arc<C>>,
    failures: u64,
    last: Option<ConnectError>,
}

impl<C> Link<C> {
    pub(super) fn new(random: Box<dyn Fn() -> f64 + Send + Sync>) -> Self {
        Self {
            now: watch::Sender::new(Now {
                caller: None,
                failures: 0,
                last: None,
            }),
            states: watch::Sender::new(LinkState::Idle),
            demand: Notify::new(),
            waiting: AtomicUsize::new(0),
            proved: AtomicBool::new(false),
            closing: CancellationToken::new(),
            closed_for: OnceLock::new(),
            peer: OnceLock::new(),
            random,
        }
    }

    pub(super) fn states(&self) -> watch::Receiver<LinkState> {
        self.states.subscribe()
    }

    /// Asks for a connection for as long as the result lives.
    pub(super) fn wait(&self) -> Attempts<'_, C> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let now = self.now.subscribe();
        let seen = now.borrow().failures;
        self.demand.notify_one();
        Attempts {
            link: self,
            now,
            seen,
        }
    }

    /// The connection works, so the next attempts begin with short pauses.
    pub(super) fn proved(&self) {
        self.proved.store(true, Ordering::Release);
    }

    /// Makes no more calls over this connection.
    pub(super) fn forget(&self, caller: &Arc<C>) {
        self.now.send_if_modified(|now| {
            let is_it = now
                .caller
                .as_ref()
                .is_some_and(|it| Arc::ptr_eq(it, caller));
            if is_it {
                now.caller = None;
            }
            is_it
        });
    }

    /// Ends everything; gives the connection there is.
    pub(super) fn close(&self, reason: &'static str) -> Option<Arc<C>> {
        self.closed_for.get_or_init(|| reason);
        self.closing.cancel();
        self.now.borrow().caller.clone()
    }

    pub(super) fn closed_as(&self) -> Closed {
        Closed::Here(self.closed_for.get().copied().unwrap_or_default())
    }

    fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    fn found(&self, caller: &Arc<C>, addr: SocketAddr) {
        self.proved.store(false, Ordering::Release);
        self.states.send_replace(LinkState::Connected(addr));
        info!(peer = %addr, "connected");
        self.now.send_modify(|now| {
            now.caller = Some(Arc::clone(caller));
            now.last = None;
        });
    }

    fn lost(&self, addr: SocketAddr, why: &'static str) {
        warn!(peer = %addr, "connection lost: {why}");
        self.states.send_replace(LinkState::Lost(why.to_owned()));
        self.now.send_modify(|now| now.caller = None);
    }

    fn failed(&self, error: ConnectError, after: Duration) {
        let why = error.message.clone();
        // One line for each thing that is wrong, not for each attempt.
        let news = LinkState::Retrying { why, after };
        let before = self.states.send_replace(news);
        match before {
            LinkState::Retrying { why, .. } if why == error.message => {
                debug!(?after, "{error}; trying again");
            }
            _ => warn!("{error}; trying again until it works or the caller gives up"),
        }
        self.now.send_modify(|now| {
            now.failures += 1;
            now.last = Some(error);
        });
    }
}

/// One call's wait for a connection.
pub(super) struct Attempts<'a, C> {
    link: &'a Link<C>,
    now: watch::Receiver<Now<C>>,
    seen: u64,
}

impl<C> Attempts<'_, C> {
    pub(super) fn caller(&mut self) -> Option<Arc<C>> {
        self.now.borrow_and_update().caller.clone()
    }

    /// Counts the failures since the last look. Why the call gives up, if it does.
    pub(super) fn failed(&mut self, tries: &mut Tries) -> Option<String> {
        let now = self.now.borrow();
        let last = now.last.as_ref()?;
        let times = now.failures - self.seen;
        self.seen = now.failures;
        let how = if last.retryable {
            Bounds::Retryable
        } else {
            Bounds::Hopeless
        };
        (times > 0 && tries.failed(times, how)).then(|| last.message.clone())
    }

    /// Why there is no connection, if an attempt has failed.
    pub(super) fn why(&self) -> Option<String> {
        let now = self.now.borrow();
        now.last.as_ref().map(|error| error.message.clone())
    }

    /// Waits for the next news.
    pub(super) async fn changed(&mut self) {
        // The sender lives in the link.
        self.now.changed().await.ok();
    }
}

impl<C> Drop for Attempts<'_, C> {
    fn drop(&mut self) {
        self.link.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Connects whenever a call waits and there is no connection, until the link is closed.
pub(super) async fn keep<P: Protocol, C: Connector<P>>(
    connector: C,
    link: Arc<Link<C::Caller>>,
    policy: Policy,
) {
    let closing = link.closing.clone();
    let work = async {
        let mut backoff = Backoff::new(policy);
        let mut pause = Duration::ZERO;
        loop {
            link.demand.notified().await;
            while link.is_wanted() {
                if !pause.is_zero() {
                    sleep(pause).await;
                }
                match connector.connect().await {
                    Ok(caller) => {
                        hold::<P, _>(&link, Arc::new(caller)).await;
                        if link.proved.load(Ordering::Acquire) {
                            backoff = Backoff::new(policy);
                        }
                        pause = backoff.pause(&link.random);
                    }
                    Err(error) => {
                        pause = backoff.pause(&link.random);
                        link.failed(error, pause);
                    }
                }
            }
        }
    };
    closing.run_until_cancelled(work).await;
}

/// Lets calls use a connection until it ends or is forgotten.
async fn hold<P: Protocol, C: Caller<P>>(link: &Link<C>, caller: Arc<C>) {
    let addr = caller.peer().addr;
    link.peer.get_or_init(|| caller.peer().clone());
    link.found(&caller, addr);
    let mut now = link.now.subscribe();
    let why = tokio::select! {
        biased;
        closed = caller.closed() => match closed {
            Closed::Here(_) => "it was closed here",
            Closed::Peer => "the other end closed it",
            Closed::Lost => "the other end stopped answering",
        },
        _forgotten = now.wait_for(|now| now.caller.is_none()) => "the other end is shutting down",
    };
    link.lost(addr, why);
}

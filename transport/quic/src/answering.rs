//! One call at the end that answers.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use flwr_transport::{
    Call, Code, Context, Drain, EventStream, Handler, Peer, Presence, Protocol, Reply,
    Request as _, Status, Tail, count_unread,
};
use futures_util::{FutureExt as _, StreamExt as _};
use quinn::{RecvStream, SendStream, WriteError};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::body;
use crate::frame::FrameError;
use crate::head::{Answered, Asked, Follows, Told};
use crate::metrics::Unread;
use crate::options::Admit;
use crate::refusals::Refusals;
use crate::stream::{Incoming, Limits, Missing, Outgoing};
use crate::windows::Windows;

/// What every call of one connection is answered with.
pub(crate) struct Answering<H> {
    pub(crate) handler: Arc<H>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) admit: Admit,
    pub(crate) refusals: Refusals,
    pub(crate) gone: CancellationToken,
    pub(crate) presence: Presence,
    /// Cancelled when the handshake is over.
    pub(crate) established: CancellationToken,
    pub(crate) drain: Drain,
    pub(crate) limits: Limits,
    pub(crate) windows: Arc<Windows>,
}

impl<H> Answering<H> {
    /// Sees a call through: until the caller has all of the answer, or has given up.
    pub(crate) async fn answer<P: Protocol>(
        self: Arc<Self>,
        outgoing: SendStream,
        incoming: RecvStream,
    ) where
        H: Handler<P>,
    {
        let mut outgoing = Outgoing::new(outgoing, self.limits).within(&self.windows);
        let mut over = pin!(outgoing.over());
        let responded = tokio::select! {
            biased;
            // A caller that takes no more is gone.
            _ = &mut over => return,
            responded = self.respond(&mut outgoing, incoming) => responded,
        };
        if responded.is_ok() {
            outgoing.finish();
            let _awaited = self.windows.awaiting();
            let _ = over.await;
        }
    }

    /// Refuses a call that came too late.
    pub(crate) async fn refuse<P: Protocol>(self: Arc<Self>, outgoing: SendStream) {
        let mut outgoing = Outgoing::new(outgoing, self.limits);
        let refusal = Answered::<P::Response>::Failed(Context::draining());
        if outgoing.write_value(&refusal).await.is_ok() {
            outgoing.finish();
            let _ = outgoing.over().await;
        }
    }

    async fn respond<P: Protocol>(
        &self,
        outgoing: &mut Outgoing,
        incoming: RecvStream,
    ) -> Result<(), WriteError>
    where
        H: Handler<P>,
    {
        let mut method = UNREAD;
        let tail = match self.handle(incoming, &mut method).await {
            Ok(Reply { response, tail }) => {
                let follows = Follows::tail(&tail);
                let head = Answered::Reply {
                    response,
                    tail: follows,
                };
                match outgoing.frame(&head) {
                    Ok(head) => outgoing.write(head).await?,
                    // The same answer would be as long the next time.
                    Err(error) => {
                        let why = format!("the answer cannot be sent: {error}");
                        let status = Status::new(Code::ResourceExhausted, why);
                        return self.fail::<P>(method, status, outgoing).await;
                    }
                }
                tail
            }
            Err(status) => return self.fail::<P>(method, status, outgoing).await,
        };
        match tail {
            Tail::None => Ok(()),
            Tail::Body(body) => {
                let sent = AssertUnwindSafe(body::send(body, outgoing)).catch_unwind();
                match sent.await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) | Err(_) => Err(WriteError::ClosedStream),
                }
            }
            Tail::Events(events) => self.tell::<P>(events, outgoing).await,
        }
    }

    async fn fail<P: Protocol>(
        &self,
        method: &str,
        status: Status,
        outgoing: &mut Outgoing,
    ) -> Result<(), WriteError> {
        let (peer, is_draining) = (self.peer.addr, self.drain.is_requested());
        self.refusals.call(
            peer,
            format_args!("{}/{method}", P::NAME),
            &status,
            is_draining,
        );
        let head = Answered::<P::Response>::Failed(status);
        outgoing.write_value(&head).await
    }

    /// Has a call answered. `method` is its name once it is known.
    async fn handle<P: Protocol>(
        &self,
        incoming: RecvStream,
        method: &mut &'static str,
    ) -> Result<Reply<P>, Status>
    where
        H: Handler<P>,
    {
        let call = self.read::<P>(incoming, method).await;
        let mut call = call.inspect_err(|refused| {
            count_unread(P::NAME, self.peer.transport, refused.code);
        })?;
        let context = Context {
            peer: Arc::clone(&self.peer),
            bearer: call.bearer.take(),
            deadline: call.deadline,
            drain: self.drain.clone(),
            gone: self.gone.clone(),
            presence: Some(self.presence.clone()),
            is_native: true,
        };
        let handled = async { self.handler.handle(context, call).await };
        let handled = AssertUnwindSafe(handled).catch_unwind().await;
        handled.unwrap_or_else(|_panic| Err(panicked()))
    }

    /// Reads the head of a call, and refuses those that cannot be answered.
    async fn read<P: Protocol>(
        &self,
        incoming: RecvStream,
        method: &mut &'static str,
    ) -> Result<Call<P>, Status>
    where
        H: Handler<P>,
    {
        // Nothing is collected for those who may not call.
        (self.admit)(&self.peer.identity)?;
        let is_early = incoming.is_0rtt();
        let mut incoming = Incoming::new(incoming, self.limits).within(&self.windows);
        let head = timeout(HEAD_TIME_MAX, incoming.next::<Asked<P::Request>>());
        let head = head.await.map_err(|_elapsed| {
            Unread::TooSlow.count();
            Status::new(Code::DeadlineExceeded, "the head of the call took too long")
        })?;
        let malformed = |why: String| Status::new(Code::InvalidArgument, why);
        let asked = match head {
            Ok(Some(asked)) => asked,
            Ok(None) => {
                Unread::Malformed.count();
                return Err(malformed("the call is empty".into()));
            }
            Err(missing) => {
                count_missing(&missing);
                return Err(malformed(format!("the call cannot be read: {missing}")));
            }
        };
        *method = asked.request.name();
        if is_early && !asked.request.idempotent() {
            // Not before it is certain that the caller is here now (RFC 8470, section 3).
            self.established.cancelled().await;
        }
        let body = match asked.body {
            Follows::Nothing => None,
            Follows::Body(bytes) => Some(body::receive(incoming, bytes)),
            Follows::Events => {
                Unread::Malformed.count();
                return Err(malformed("a call has no events".into()));
            }
        };
        let patience = Duration::from_millis(asked.patience_ms).min(PATIENCE_MAX);
        Ok(Call {
            request: asked.request,
            bearer: asked.bearer,
            body,
            deadline: Instant::now() + patience,
        })
    }

    /// Sends events until the service ends them, or the drain does.
    async fn tell<P: Protocol>(
        &self,
        mut events: EventStream<P::Event>,
        outgoing: &mut Outgoing,
    ) -> Result<(), WriteError> {
        loop {
            let next = AssertUnwindSafe(events.next()).catch_unwind();
            let next = tokio::select! {
                biased;
                () = self.drain.requested() => return Ok(()),
                next = next => next,
            };
            let (told, is_last) = match next.unwrap_or_else(|_panic| Some(Err(panicked()))) {
                None => return Ok(()),
                Some(Ok(event)) => (Told::Event(event), false),
                Some(Err(status)) => (Told::Failed(status), true),
            };
            outgoing.write_value(&told).await?;
            if is_last {
                return Ok(());
            }
        }
    }
}

/// A caller that has given up, or is gone, has done nothing wrong.
fn count_missing(missing: &Missing) {
    match missing {
        Missing::Frame(FrameError::TooLong { .. }) => Unread::Oversized.count(),
        Missing::Frame(_) | Missing::Cut => Unread::Malformed.count(),
        Missing::Reset(_) | Missing::Lost(_) => {}
    }
}

fn panicked() -> Status {
    Status::new(Code::Internal, "the handler panicked")
}

/// The name of a call that was refused before it was read.
const UNREAD: &str = "*";
/// How long the head of a call may take to arrive, from the first byte of its stream.
const HEAD_TIME_MAX: Duration = Duration::from_secs(60);
/// A caller that waits longer is taken to wait this long.
const PATIENCE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

//! One call, from its message to its answer, whatever the form of HTTP that it came in.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flwr_transport::{Body, Call, Context, Drain, Handler, Identity, Peer, Protocol, count_unread};
use futures_util::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::buffers::Received;
use crate::dialect::{Answer, Dialect, Split, Subject};
use crate::status::from_grpc;

/// Answers the methods of one gRPC service.
pub(crate) trait Exchange: Send + Sync + 'static {
    /// The service's full name.
    const SERVICE: &'static str;
    /// What its calls are counted as.
    const PROTOCOL: &'static str;

    /// Where an object begins in the request of a method ([`Dialect::split`]).
    fn split(&self, method: &str, seen: &[u8], message_bytes: u64) -> Split {
        let _ = (method, seen, message_bytes);
        Split::Whole
    }

    /// Answers one message. `object` is the end of the message that was split off.
    fn exchange(
        &self,
        context: Context,
        method: &str,
        message: Bytes,
        object: Option<Body>,
    ) -> impl Future<Output = Result<Answer, tonic::Status>> + Send;
}

/// A handler behind a dialect.
pub(crate) struct Spoken<P, D, H> {
    pub(crate) dialect: Arc<D>,
    pub(crate) handler: Arc<H>,
    pub(crate) protocol: std::marker::PhantomData<fn() -> P>,
}

impl<P: Protocol, D: Dialect<P>, H: Handler<P>> Exchange for Spoken<P, D, H> {
    const SERVICE: &'static str = D::SERVICE;
    const PROTOCOL: &'static str = P::NAME;

    fn split(&self, method: &str, seen: &[u8], message_bytes: u64) -> Split {
        self.dialect.split(method, seen, message_bytes)
    }

    async fn exchange(
        &self,
        mut context: Context,
        method: &str,
        message: Bytes,
        object: Option<Body>,
    ) -> Result<Answer, tonic::Status> {
        let question = self.dialect.decode(method, message).map_err(|status| {
            count_unread(P::NAME, context.peer.transport, status.code);
            self.dialect.refuse(&status, Subject::None)
        })?;
        let subject = question.subject;
        context.bearer = question.bearer;
        let call = Call {
            request: question.request,
            bearer: None,
            body: object.or(question.body),
            deadline: context.deadline,
        };
        let reply = self.handler.handle(context, call).await;
        let reply = reply.map_err(|status| self.dialect.refuse(&status, subject))?;
        Ok(self.dialect.encode(reply))
    }
}

/// What all calls of one connection share.
pub(crate) struct Calls<E> {
    pub(crate) exchange: Arc<E>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) drain: Drain,
    /// Cancelled when the connection is gone.
    pub(crate) gone: CancellationToken,
}

impl<E> Drop for Calls<E> {
    /// All calls of a connection have ended when it has.
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

/// One call.
pub(crate) struct Called<'a> {
    /// The name of the method in its service.
    pub(crate) method: &'a str,
    /// Who calls.
    pub(crate) identity: Identity,
    /// How long the caller waits, if it said.
    pub(crate) timeout: Option<Duration>,
}

/// A caller without a deadline is waited for this long: longer than any hold or transfer.
pub(crate) const DEADLINE_DEFAULT: Duration = Duration::from_secs(24 * 3600);

impl<E: Exchange> Calls<E> {
    /// Waits for a call's message and answers it. A bug on the way is a failure like others.
    pub(crate) async fn answer(
        &self,
        call: Called<'_>,
        message: impl Future<Output = Result<Received, tonic::Status>>,
    ) -> Result<Answer, tonic::Status> {
        let _guard = self.drain.guard();
        let peer = match call.identity {
            Identity::Anonymous => Arc::clone(&self.peer),
            identity => Arc::new(Peer {
                identity,
                ..(*self.peer).clone()
            }),
        };
        let deadline = Instant::now() + call.timeout.unwrap_or(DEADLINE_DEFAULT);
        let context = Context {
            peer,
            bearer: None,
            deadline,
            drain: self.drain.clone(),
            gone: self.gone.clone(),
            presence: None,
            is_native: false,
        };
        let work = async {
            // The room is given back when the call is over.
            let Received {
                message,
                object,
                room: _room,
            } = message.await.map_err(|status| self.unread(status))?;
            let exchange = &self.exchange;
            exchange
                .exchange(context, call.method, message, object)
                .await
        };
        let work = AssertUnwindSafe(tokio::time::timeout_at(deadline, work)).catch_unwind();
        match work.await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_)) => Err(tonic::Status::deadline_exceeded("the deadline passed")),
            Err(_) => {
                error!(
                    method = call.method,
                    "a bug ended the call; the caller may repeat it"
                );
                Err(tonic::Status::unavailable("the server failed to answer"))
            }
        }
    }

    /// The refusal of a call that no service has seen, counted.
    pub(crate) fn unread(&self, status: tonic::Status) -> tonic::Status {
        count_unread(E::PROTOCOL, self.peer.transport, from_grpc(status.code()));
        status
    }

    pub(crate) fn log_refusal(&self, path: &str, status: &tonic::Status) {
        let (peer, code, why) = (self.peer.addr, status.code(), status.message());
        match code {
            tonic::Code::Unauthenticated => warn!(%peer, method = path, why, "call refused"),
            tonic::Code::Cancelled | tonic::Code::DeadlineExceeded => {
                debug!(%peer, method = path, ?code, why, "call ended");
            }
            _ if self.drain.is_requested() => {
                debug!(%peer, method = path, ?code, why, "call ended");
            }
            _ => info!(%peer, method = path, ?code, why, "call refused"),
        }
    }
}

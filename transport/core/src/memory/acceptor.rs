//! The accepting end.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{OptionFuture, join};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::pipe::{Writer, carry, pieces, pipe};
use super::{Incoming, Link, Options, unavailable};
use crate::body::{Body, BodyError};
use crate::call::{EventStream, Protocol, Reply, Tail};
use crate::drain::Drain;
use crate::serve::{self, Context, Drained, Handler, ServeError};
use crate::status::{Code, Status};

/// Answers the calls of its pair's connections. Once it or its serving is dropped, they fail with
/// [`Code::Unavailable`].
#[derive(Debug)]
pub struct Acceptor<P: Protocol> {
    link: Arc<Link<P>>,
    incoming: mpsc::Receiver<Incoming<P>>,
    options: Options,
    _refuse_when_dropped: DropGuard,
    _gone_when_dropped: DropGuard,
}

impl<P: Protocol> Acceptor<P> {
    pub(super) fn new(
        link: Arc<Link<P>>,
        incoming: mpsc::Receiver<Incoming<P>>,
        options: Options,
    ) -> Self {
        Self {
            incoming,
            options,
            _refuse_when_dropped: link.refusing.clone().drop_guard(),
            _gone_when_dropped: link.gone.clone().drop_guard(),
            link,
        }
    }
}

impl<P: Protocol> serve::Acceptor<P> for Acceptor<P> {
    fn local_addr(&self) -> SocketAddr {
        self.link.acceptor.addr
    }

    /// Serves. Dropping the future cuts every call under way.
    async fn serve<H: Handler<P>>(
        mut self,
        handler: Arc<H>,
        drain: Drain,
    ) -> Result<Drained, ServeError> {
        let mut under_way = JoinSet::new();
        loop {
            let has_room = under_way.len() < self.options.calls_max.max(1);
            tokio::select! {
                biased;
                () = drain.requested() => break,
                Some(_) = under_way.join_next() => {}
                Some(incoming) = self.incoming.recv(), if has_room => {
                    let answering = Answering {
                        options: self.options.clone(),
                        handler: Arc::clone(&handler),
                        drain: drain.clone(),
                    };
                    let guard = drain.guard();
                    under_way.spawn(async move {
                        answering.answer(incoming).await;
                        drop(guard);
                    });
                }
            }
        }
        self.link.refusing.cancel();
        let cut = self.finish(&mut under_way).await;
        Ok(Drained { cut })
    }
}

impl<P: Protocol> Acceptor<P> {
    /// Refuses what comes and waits for what is there; returns how many calls it had to cut.
    async fn finish(&mut self, under_way: &mut JoinSet<()>) -> usize {
        let grace = tokio::time::sleep(self.options.grace);
        tokio::pin!(grace);
        while !under_way.is_empty() {
            tokio::select! {
                biased;
                Some(_) = under_way.join_next() => {}
                () = &mut grace => break,
                Some(late) = self.incoming.recv() => refuse(late),
            }
        }
        while let Ok(late) = self.incoming.try_recv() {
            refuse(late);
        }
        let cut = under_way.len();
        under_way.shutdown().await;
        cut
    }
}

fn refuse<P: Protocol>(late: Incoming<P>) {
    // A caller that is gone needs no refusal.
    late.reply_to.send(Err(Context::draining())).ok();
}

/// What every call of one acceptor is answered with.
struct Answering<H> {
    options: Options,
    handler: Arc<H>,
    drain: Drain,
}

impl<H> Answering<H> {
    /// Sees one call through: its body, its handler, its tail.
    async fn answer<P: Protocol>(self, mut incoming: Incoming<P>)
    where
        H: Handler<P>,
    {
        let abandoned = incoming.connection.ended.child_token();
        let upload = incoming.call.body.take().map(|body| {
            let (writer, arriving) = self.body_pipe(&body);
            incoming.call.body = Some(arriving);
            self.carry_body(body, writer, abandoned.clone())
        });
        let respond = async {
            if self.respond(incoming).await.is_err() {
                abandoned.cancel();
            }
        };
        join(OptionFuture::from(upload), respond).await;
    }

    async fn respond<P: Protocol>(&self, incoming: Incoming<P>) -> Result<(), Abandoned>
    where
        H: Handler<P>,
    {
        let Incoming {
            connection,
            mut call,
            mut reply_to,
        } = incoming;
        let context = Context {
            gone: connection.ended.clone(),
            presence: None,
            is_native: true,
            peer: Arc::clone(&connection.caller),
            bearer: call.bearer.take(),
            deadline: call.deadline,
            drain: self.drain.clone(),
        };
        let handled = async { self.handler.handle(context, call).await };
        let handled = tokio::select! {
            biased;
            // Also when the connection ends: its caller then stops waiting.
            () = reply_to.closed() => return Err(Abandoned),
            handled = AssertUnwindSafe(handled).catch_unwind() => handled,
        };
        let (head, following) = match handled.unwrap_or_else(|_| Err(panicked())) {
            Ok(reply) => {
                let (tail, following) = self.split_tail(reply.tail);
                let response = reply.response;
                (Ok(Reply { response, tail }), following)
            }
            Err(status) => (Err(status), Following::None),
        };
        reply_to.send(head).map_err(|_| Abandoned)?;
        match following {
            Following::None => {}
            Following::Body(body, writer) => {
                let ended = connection.ended.clone();
                self.carry_body(body, writer, ended).await;
            }
            Following::Events(events, writer) => {
                let stop = async {
                    tokio::select! {
                        biased;
                        _ = connection.ended() => Err(unavailable()),
                        () = self.drain.requested() => Ok(()),
                    }
                };
                carry(events, writer, stop, panicked()).await;
            }
        }
        Ok(())
    }

    /// The tail as the caller gets it, and what has to be carried into it.
    fn split_tail<P: Protocol>(&self, tail: Tail<P>) -> (Tail<P>, Following<P>) {
        match tail {
            Tail::None => (Tail::None, Following::None),
            Tail::Body(body) => {
                let (writer, arriving) = self.body_pipe(&body);
                (Tail::Body(arriving), Following::Body(body, writer))
            }
            Tail::Events(events) => {
                let (writer, arriving) = pipe(self.options.events_max, unavailable());
                (Tail::Events(arriving), Following::Events(events, writer))
            }
        }
    }

    fn body_pipe(&self, body: &Body) -> (BodyWriter, Body) {
        let (writer, arriving) = pipe(self.options.pieces_max, BodyError::Interrupted);
        (writer, Body::from_stream(body.len(), arriving))
    }

    fn carry_body(
        &self,
        body: Body,
        writer: BodyWriter,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<H> {
        let pieces = pieces(body, self.options.piece_bytes_max);
        let stop = async move {
            stop.cancelled().await;
            Err(BodyError::Interrupted)
        };
        carry(pieces, writer, stop, BodyError::Interrupted)
    }
}

/// The caller did not wait for the reply.
struct Abandoned;

type BodyWriter = Writer<bytes::Bytes, BodyError>;

/// What the acceptor still carries after a reply's head.
enum Following<P: Protocol> {
    None,
    Body(Body, BodyWriter),
    Events(EventStream<P::Event>, Writer<P::Event, Status>),
}

fn panicked() -> Status {
    Status::new(Code::Internal, "the handler panicked")
}

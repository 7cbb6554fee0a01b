//! One call from the end that asks.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use flwr_transport::{Body, Call, Code, EventStream, Protocol, Reply, Status, Tail};
use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _};
use tokio::time::{Instant, timeout_at};

use crate::body;
use crate::frame::encode;
use crate::head::{Answered, Asked, Follows, Told};
use crate::pulse::{Awaited, Pulse};
use crate::stream::{Incoming, Limits, Outgoing, lost};

/// Makes a call. Dropping the future resets its stream, which drops the handler at the other end.
pub(crate) async fn call<P: Protocol>(
    pulse: &Arc<Pulse>,
    call: Call<P>,
    limits: Limits,
) -> Result<Reply<P>, Status> {
    let deadline = call.deadline;
    let answered = timeout_at(deadline, exchange(pulse, call, limits));
    answered.await.unwrap_or_else(|_elapsed| {
        Err(Status::new(
            Code::DeadlineExceeded,
            "no answer before the deadline",
        ))
    })
}

async fn exchange<P: Protocol>(
    pulse: &Arc<Pulse>,
    call: Call<P>,
    limits: Limits,
) -> Result<Reply<P>, Status> {
    let asked = Asked {
        patience_ms: whole_ms(call.deadline.saturating_duration_since(Instant::now())),
        bearer: call.bearer,
        body: Follows::body(call.body.as_ref()),
        request: call.request,
    };
    let head = encode(&asked, limits.write_bytes_max)
        .map_err(|error| Status::new(Code::ResourceExhausted, error.to_string()))?;
    let opened = pulse.connection().open_bi().await;
    let (outgoing, incoming) = opened.map_err(|error| lost(&error))?;
    let mut incoming = Incoming::new(incoming, limits).of(pulse);
    let awaited = pulse.awaiting();
    let mut outgoing = Outgoing::new(outgoing, limits);
    // If the peer does not take it, it says so where the answer would come.
    let written = outgoing.write(head).await;
    let Some(body) = call.body.filter(|_| written.is_ok()) else {
        let answered = without_body(outgoing, incoming.next(), awaited).await;
        return answer(answered?, incoming);
    };
    let mut upload = Box::pin(upload(body, outgoing, awaited));
    let answered = tokio::select! {
        biased;
        answered = incoming.next() => {
            // The answer may have a body that depends on the rest of this one.
            tokio::spawn(upload);
            answered
        }
        () = &mut upload => incoming.next().await,
    };
    answer(answered?, incoming)
}

/// Waits for the answer of a call that is sent. A call that has arrived may be held for as long as it takes.
async fn without_body<T>(
    mut outgoing: Outgoing,
    answered: impl Future<Output = T>,
    awaited: Awaited,
) -> T {
    outgoing.finish();
    let mut answered = pin!(answered);
    tokio::select! {
        biased;
        answered = &mut answered => return answered,
        _ = outgoing.over() => drop(awaited),
    }
    answered.await
}

/// Sends what goes with a call, until all of it is there or nobody wants more. A body whose source
/// fails is broken off, and the answer says what came of it.
async fn upload(body: Body, mut outgoing: Outgoing, _awaited: Awaited) {
    let mut over = pin!(outgoing.over());
    let sent = tokio::select! {
        biased;
        _ = &mut over => return,
        sent = body::send(body, &mut outgoing) => sent,
    };
    if sent.is_ok() {
        outgoing.finish();
        let _ = over.await;
    }
}

fn answer<P: Protocol>(
    answered: Option<Answered<P::Response>>,
    mut incoming: Incoming,
) -> Result<Reply<P>, Status> {
    let (response, follows) = match answered {
        Some(Answered::Reply { response, tail }) => (response, tail),
        Some(Answered::Failed(status)) => return Err(status),
        None => {
            return Err(Status::new(
                Code::Unavailable,
                "the server went away without an answer",
            ));
        }
    };
    let tail = match follows {
        Follows::Nothing => {
            // The end is mostly here, and nothing has to be said about it then.
            let _end = incoming.stream.read_chunk(1, true).now_or_never();
            Tail::None
        }
        Follows::Body(bytes) => Tail::Body(body::receive(incoming, bytes)),
        Follows::Events => Tail::Events(events(incoming)),
    };
    Ok(Reply { response, tail })
}

fn events<E: flwr_transport::Wire>(incoming: Incoming) -> EventStream<E> {
    stream::unfold(Some(incoming), async |incoming| {
        let mut incoming = incoming?;
        match incoming.next::<Told<E>>().await {
            Ok(Some(Told::Event(event))) => Some((Ok(event), Some(incoming))),
            Ok(Some(Told::Failed(status))) => Some((Err(status), None)),
            Ok(None) => None,
            Err(missing) => Some((Err(missing.into()), None)),
        }
    })
    .boxed()
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

//! Counting calls where they are answered, and where they are made.

use std::sync::Arc;

use metrics::{Gauge, counter, gauge, histogram};
use tokio::time::Instant;

use crate::body::Body;
use crate::call::{Call, Protocol, Reply, Request as _, Tail};
use crate::metrics::{
    BODY_BYTES, CALL_SECONDS, CALLS, CALLS_UNDER_WAY, CLIENT_BODY_BYTES, CLIENT_CALLS,
};
use crate::serve::{Context, Handler};
use crate::status::{Code, Status};

/// A handler whose calls are counted.
#[derive(Debug)]
pub struct Counted<H>(pub Arc<H>);

impl<P: Protocol, H: Handler<P>> Handler<P> for Counted<H> {
    async fn handle(&self, context: Context, mut call: Call<P>) -> Result<Reply<P>, Status> {
        let transport = context.peer.transport;
        let mut under_way = UnderWay::begin(P::NAME, call.request.name(), transport);
        call.body = call
            .body
            .map(|body| counted(body, BODY_BYTES, transport, "received"));
        let answered = self.0.handle(context, call).await;
        under_way.code = match &answered {
            Ok(_) => "ok",
            Err(status) => status.code.name(),
        };
        drop(under_way);
        Ok(answered?.counted(BODY_BYTES, transport, "sent"))
    }
}

/// Counts a call that was refused before a service has seen it.
pub fn count_unread(protocol: &'static str, transport: &'static str, code: Code) {
    let code = code.name();
    counter!(
        CALLS, "protocol" => protocol, "call" => UNREAD, "transport" => transport, "code" => code
    )
    .increment(1);
}

/// What such a call counts as, whatever it says that it is.
const UNREAD: &str = "unread";

/// A call that this process makes, counted when this is dropped.
pub(crate) struct Made {
    protocol: &'static str,
    call: &'static str,
    transport: &'static str,
    code: &'static str,
}

impl Made {
    /// A call over this transport, the bytes of whose body are counted from now on.
    pub(crate) fn begin<P: Protocol>(transport: &'static str, call: &mut Call<P>) -> Self {
        let body = call.body.take();
        call.body = body.map(|body| counted(body, CLIENT_BODY_BYTES, transport, "sent"));
        Self {
            protocol: P::NAME,
            call: call.request.name(),
            transport,
            // Until it ends in another way.
            code: Code::Cancelled.name(),
        }
    }

    /// It was answered.
    pub(crate) fn end<P: Protocol>(
        mut self,
        answered: Result<Reply<P>, Status>,
    ) -> Result<Reply<P>, Status> {
        self.code = match &answered {
            Ok(_) => "ok",
            Err(status) => status.code.name(),
        };
        Ok(answered?.counted(CLIENT_BODY_BYTES, self.transport, "received"))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let Self {
            protocol,
            call,
            transport,
            code,
        } = *self;
        counter!(
            CLIENT_CALLS, "protocol" => protocol, "call" => call, "transport" => transport, "code" => code
        )
        .increment(1);
    }
}

impl<P: Protocol> Reply<P> {
    fn counted(
        self,
        bytes: &'static str,
        transport: &'static str,
        direction: &'static str,
    ) -> Self {
        let tail = match self.tail {
            Tail::Body(body) => Tail::Body(counted(body, bytes, transport, direction)),
            other => other,
        };
        Self { tail, ..self }
    }
}

/// The same body, whose bytes are counted under this name as they pass.
fn counted(
    body: Body,
    bytes: &'static str,
    transport: &'static str,
    direction: &'static str,
) -> Body {
    let bytes = counter!(bytes, "transport" => transport, "direction" => direction);
    body.inspect(move |piece| bytes.increment(piece as u64))
}

/// A call that is counted when it ends, or is dropped because its caller has gone.
struct UnderWay {
    protocol: &'static str,
    call: &'static str,
    transport: &'static str,
    code: &'static str,
    gauge: Gauge,
    began: Instant,
}

impl UnderWay {
    fn begin(protocol: &'static str, call: &'static str, transport: &'static str) -> Self {
        let gauge = gauge!(CALLS_UNDER_WAY, "protocol" => protocol, "transport" => transport);
        gauge.increment(1);
        Self {
            protocol,
            call,
            transport,
            // Until it ends in another way.
            code: Code::Cancelled.name(),
            gauge,
            began: Instant::now(),
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Self {
            protocol,
            call,
            transport,
            ..
        } = *self;
        let code = if std::thread::panicking() {
            Code::Internal.name()
        } else {
            self.code
        };
        self.gauge.decrement(1);
        counter!(
            CALLS, "protocol" => protocol, "call" => call, "transport" => transport, "code" => code
        )
        .increment(1);
        histogram!(CALL_SECONDS, "protocol" => protocol, "call" => call)
            .record(self.began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use bytes::Bytes;
    use metrics::set_default_local_recorder;
    use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

    use super::*;
    use crate::conformance::{Ask, Flow, Plan, Service, Toy};
    use crate::drain::Drain;
    use crate::memory::{self, Options};
    use crate::redial::{Policy, Redial};
    use crate::serve::{Acceptor as _, Caller as _, Connector as _};

    const SOON: Duration = Duration::from_secs(60);

    /// Counters and gauges by name and labels.
    fn figures(snapshotter: &Snapshotter) -> BTreeMap<String, i64> {
        let values = snapshotter.snapshot().into_vec().into_iter();
        let numbers = values.filter_map(|(key, _, _, value)| {
            let labels = key.key().labels();
            let labels: Vec<_> = labels.map(|label| label.value().to_owned()).collect();
            let name = format!("{} {}", key.key().name(), labels.join(" "));
            match value {
                DebugValue::Counter(number) => Some((name, i64::try_from(number).unwrap())),
                DebugValue::Gauge(number) => Some((name, format!("{number}").parse().unwrap())),
                DebugValue::Histogram(_) => None,
            }
        });
        numbers.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn every_call_is_counted_with_how_it_ended() {
        let recorder = DebuggingRecorder::new();
        let _recording = set_default_local_recorder(&recorder);
        let (connector, acceptor) = memory::pair::<Toy>(Options::default());
        let handler = Arc::new(Counted(Arc::new(Service::default())));
        let serving = tokio::spawn(acceptor.serve(handler, Drain::new()));
        let caller = connector.connect().await.unwrap();
        let ask = |ask| Call::new(ask, Instant::now() + SOON);

        caller.call(ask(Ask::Echo("x".into()))).await.unwrap();
        caller.call(ask(Ask::Echo("y".into()))).await.unwrap();
        let refusal = Status::new(Code::NotFound, "nothing is here");
        caller.call(ask(Ask::Fail(refusal))).await.unwrap_err();
        caller.call(ask(Ask::Panic)).await.unwrap_err();
        // It is given up when the deadline passes.
        let held = ask(Ask::Hold { until_drain: false });
        caller.call(held).await.unwrap_err();
        let body = Flow::default().body(Plan::unannounced(5));
        caller.call(ask(Ask::Sink).with_body(body)).await.unwrap();
        let asked = caller.call(ask(Ask::Source(Plan::announced(7000))));
        let Tail::Body(body) = asked.await.unwrap().tail else {
            panic!("a body was asked for");
        };
        assert_eq!(body.collect(1 << 20).await.unwrap().len(), 7000);
        drop(caller);
        tokio::task::yield_now().await;

        let calls = |call: &str, code: &str| format!("{CALLS} flwr.toy {call} memory {code}");
        let expected = [
            (calls("Echo", "ok"), 2),
            (calls("Fail", "not_found"), 1),
            (calls("Hold", "cancelled"), 1),
            (calls("Panic", "internal"), 1),
            (calls("Sink", "ok"), 1),
            (calls("Source", "ok"), 1),
            (format!("{BODY_BYTES} memory received"), 5),
            (format!("{BODY_BYTES} memory sent"), 7000),
            (format!("{CALLS_UNDER_WAY} flwr.toy memory"), 0),
        ];
        assert_eq!(figures(&recorder.snapshotter()), BTreeMap::from(expected));
        serving.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_are_made_are_counted_with_how_they_ended() {
        let recorder = DebuggingRecorder::new();
        let _recording = set_default_local_recorder(&recorder);
        let (connector, acceptor) = memory::pair::<Toy>(Options::default());
        let handler = Arc::new(Service::default());
        let serving = tokio::spawn(acceptor.serve(handler, Drain::new()));
        let redial = Redial::new(connector, Policy::default(), || 1.0);
        let ask = |ask| Call::new(ask, Instant::now() + SOON);

        redial.call(ask(Ask::Echo("x".into()))).await.unwrap();
        let refusal = Status::new(Code::NotFound, "nothing is here");
        redial.call(ask(Ask::Fail(refusal))).await.unwrap_err();
        let held = redial.call(ask(Ask::Hold { until_drain: false }));
        drop(tokio::time::timeout(SOON / 2, held).await);
        let body = Flow::default().body(Plan::unannounced(5));
        redial.call(ask(Ask::Sink).with_body(body)).await.unwrap();
        let asked = redial.call(ask(Ask::Source(Plan::announced(7000))));
        let Tail::Body(body) = asked.await.unwrap().tail else {
            panic!("a body was asked for");
        };
        body.collect(1 << 20).await.unwrap();

        let calls =
            |call: &str, code: &str| format!("{CLIENT_CALLS} flwr.toy {call} memory {code}");
        let expected = [
            (calls("Echo", "ok"), 1),
            (calls("Fail", "not_found"), 1),
            (calls("Hold", "cancelled"), 1),
            (calls("Sink", "ok"), 1),
            (calls("Source", "ok"), 1),
            (format!("{CLIENT_BODY_BYTES} memory received"), 7000),
            (format!("{CLIENT_BODY_BYTES} memory sent"), 5),
        ];
        assert_eq!(figures(&recorder.snapshotter()), BTreeMap::from(expected));
        serving.abort();
    }

    #[tokio::test]
    async fn a_body_in_one_piece_stays_one() {
        let bytes = Bytes::from(vec![7; 100]);
        let recorder = DebuggingRecorder::new();
        let _recording = set_default_local_recorder(&recorder);
        let body = counted(
            Body::from_bytes(bytes.clone()),
            BODY_BYTES,
            "memory",
            "sent",
        );
        let collected = body.collect(100).await.unwrap();
        assert_eq!(collected.as_ptr(), bytes.as_ptr());
        assert_eq!(
            figures(&recorder.snapshotter()),
            BTreeMap::from([(format!("{BODY_BYTES} memory sent"), 100)])
        );
    }
}

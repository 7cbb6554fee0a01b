//! What all connections together may hold.

use std::future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flwr_transport::conformance::{Answer, Ask, Flow, Plan, Service, Toy};
use flwr_transport::{
    Acceptor as _, Body, Call, Caller as _, Connector as _, Context, Drain, Handler, Reply, Status,
    Tail,
};
use flwr_transport_quic::{Caller, Connector, Options, Target, Tuning};
use futures_util::future::join_all;
use futures_util::stream;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::relay::Relay;
use crate::support::{Site, listen};

const SOON: Duration = Duration::from_secs(60);
const CONNECTIONS: u64 = 16;
const BODIES: u64 = 2;

/// Answers [`Ask::Echo`], and holds everything else without reading it.
#[derive(Debug)]
struct Hoarder;

impl Handler<Toy> for Hoarder {
    async fn handle(&self, _: Context, call: Call<Toy>) -> Result<Reply<Toy>, Status> {
        match call.request {
            Ask::Echo(text) => Ok(Reply::new(Answer::Echo(text))),
            _ => {
                let _unread = call.body;
                future::pending().await
            }
        }
    }
}

/// A service that the test looks at.
#[derive(Debug)]
struct Shared(Arc<Service>);

impl Handler<Toy> for Shared {
    async fn handle(&self, context: Context, call: Call<Toy>) -> Result<Reply<Toy>, Status> {
        self.0.handle(context, call).await
    }
}

async fn serve(handler: impl Handler<Toy>, memory_max: u64) -> (Target, AbortOnDropHandle<()>) {
    let options = Options {
        memory_max,
        ..Options::default()
    };
    let acceptor = listen::<Toy>(Site::get(), options);
    let target = Site::get().target(&acceptor);
    let serving = tokio::spawn(async move {
        let served = acceptor.serve(Arc::new(handler), Drain::new()).await;
        served.unwrap();
    });
    (target, AbortOnDropHandle::new(serving))
}

async fn connect(target: &Target, tuning: &Tuning) -> Arc<Caller<Toy>> {
    let tls = Site::get().anonymous();
    let connector = Connector::new(target.clone(), &tls, tuning).unwrap();
    Arc::new(connector.connect().await.unwrap())
}

async fn still_answers(caller: &Caller<Toy>) {
    let reply = caller.call(ask(Ask::Echo("hello".into()))).await.unwrap();
    assert_eq!(reply.response, Answer::Echo("hello".into()));
}

fn ask(request: Ask) -> Call<Toy> {
    Call::new(request, Instant::now() + SOON)
}

/// Bytes without end in small pieces, counted as they are handed over.
fn counted(sent: &Arc<AtomicU64>) -> Body {
    let (sent, piece) = (Arc::clone(sent), Bytes::from(vec![7; PIECE_BYTES]));
    let pieces = stream::repeat_with(move || {
        sent.fetch_add(PIECE_BYTES as u64, Ordering::Relaxed);
        Ok(piece.clone())
    });
    Body::from_stream(None, pieces)
}

#[tokio::test]
async fn unread_bodies_of_many_stay_within_the_budget() {
    const BUDGET: u64 = 4 << 20;
    let (target, _serving) = serve(Hoarder, BUDGET).await;
    // The senders keep little themselves, so that what they have sent is at the other end.
    let sender = Tuning {
        send_window: 64 << 10,
        ..Tuning::connecting()
    };
    let sent = Arc::new(AtomicU64::new(0));
    let mut under_way = Vec::new();
    for _ in 0..CONNECTIONS {
        let caller = connect(&target, &sender).await;
        for _ in 0..BODIES {
            let (caller, call) = (
                Arc::clone(&caller),
                ask(Ask::Sink).with_body(counted(&sent)),
            );
            let calling = tokio::spawn(async move { caller.call(call).await.map(drop) });
            under_way.push(AbortOnDropHandle::new(calling));
        }
    }
    let good = connect(&target, &Tuning::connecting()).await;
    let filled = timeout(SOON, async {
        while sent.load(Ordering::Relaxed) < BUDGET {
            still_answers(&good).await;
        }
    });
    filled.await.unwrap();
    // Time for those who have room to send more.
    for _ in 0..200 {
        still_answers(&good).await;
    }
    // What each connection has to itself, what its sender keeps, and the pieces in their hands.
    let beside = (64 << 10) + sender.send_window + BODIES * PIECE_BYTES as u64;
    let held = sent.load(Ordering::Relaxed);
    assert!(held <= BUDGET + CONNECTIONS * beside, "{held}");
    let answered = under_way.iter().filter(|call| call.is_finished()).count();
    assert_eq!(answered, 0);
}

#[tokio::test]
async fn bodies_for_many_that_acknowledge_nothing_stay_within_the_budget() {
    const BUDGET: u64 = 8 << 20;
    let service = Arc::new(Service::default());
    let handed_over = service.downloads.sent.clone();
    let (target, _serving) = serve(Shared(service), BUDGET).await;
    let mut acknowledged = 0;
    let mut kept = Vec::new();
    for _ in 0..CONNECTIONS {
        let relay = Relay::to((target.host.parse::<IpAddr>().unwrap(), target.port).into()).await;
        let caller = connect(&relay.target(), &Tuning::connecting()).await;
        let reply = caller
            .call(ask(Ask::Source(Plan::endless())))
            .await
            .unwrap();
        acknowledged += relay.cut().await;
        kept.push((caller, reply));
    }
    let held = || handed_over.value().saturating_sub(acknowledged);
    let good = connect(&target, &Tuning::connecting()).await;
    let filled = timeout(SOON, async {
        while held() < BUDGET / 2 {
            still_answers(&good).await;
        }
    });
    filled.await.unwrap();
    for _ in 0..200 {
        still_answers(&good).await;
    }
    // What each connection has to itself, and the pieces in its hands.
    let beside = (64 << 10) + 2 * (256 << 10);
    assert!(held() <= BUDGET + CONNECTIONS * beside, "{}", held());
}

#[tokio::test]
async fn all_bodies_arrive_with_little_memory_for_many() {
    const BYTES: u64 = 2 << 20;
    let (target, _serving) = serve(Service::default(), 256 << 10).await;
    let flow = Flow::default();
    let usual = Tuning::connecting();
    let callers = (0..CONNECTIONS).map(|_| connect(&target, &usual));
    let callers = join_all(callers).await;
    let calls = callers
        .iter()
        .flat_map(|caller| (0..BODIES).map(move |_| caller));
    let both_ways = calls.map(async |caller| {
        let up = ask(Ask::Sink).with_body(flow.body(Plan::announced(BYTES)));
        let up = async {
            let answered = caller.call(up).await.unwrap().response;
            assert_eq!(answered, Answer::Received(Some(BYTES), BYTES));
        };
        let down = async {
            let asked = ask(Ask::Source(Plan::announced(BYTES)));
            let Tail::Body(mut body) = caller.call(asked).await.unwrap().tail else {
                panic!("a body was asked for");
            };
            assert_eq!(Flow::default().read(&mut body, u64::MAX).await, Ok(BYTES));
        };
        tokio::join!(up, down);
    });
    timeout(2 * SOON, join_all(both_ways)).await.unwrap();
}

const PIECE_BYTES: usize = 16 << 10;

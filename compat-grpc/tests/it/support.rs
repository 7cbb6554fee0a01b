//! Servers and clients for the tests.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flwr_api::fleet::Fleet;
use flwr_api::{Message, MessageId, Metadata, NodeId, ObjectId, Payload, RunId, UnixTime};
use flwr_certs::ClientTls;
use flwr_compat_grpc::client::Asking;
use flwr_compat_grpc::f1::{FleetF1, RestListener};
use flwr_compat_grpc::{
    Buffers, CallerAuth, Credentials, Dialect, GrpcCaller, GrpcConnector, GrpcListener, Limits,
};
use flwr_transport::{
    Acceptor, Body, Call, Connector, Context, Current, Drain, Drained, Handler, MemoryBudget,
    Protocol, Reply, ServeError, Status,
};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Longer than a machine under load needs for anything small.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What must happen, and soon.
pub(crate) async fn soon<T>(awaited: impl Future<Output = T>) -> T {
    let awaited = tokio::time::timeout(PATIENCE, awaited).await;
    awaited.expect("what must happen happens in time")
}

pub(crate) fn later() -> Instant {
    Instant::now() + 3 * PATIENCE
}

/// A served listener. Dropping it ends the serving.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) drain: Drain,
    _serving: AbortOnDropHandle<Result<Drained, ServeError>>,
}

/// Where servers run that the test lets die.
pub(crate) struct Machine(Runtime);

impl Machine {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        Self(runtime.unwrap())
    }

    /// Runs something there to its end; what it spawned goes on.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        self.0.spawn(work).await.unwrap()
    }

    /// Drops everything and with it the sockets.
    pub(crate) fn die(self) {
        self.0.shutdown_background();
    }
}

/// What a listener speaks over.
pub(crate) struct Over {
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) auth: CallerAuth,
}

impl Default for Over {
    fn default() -> Self {
        Self {
            tls: None,
            auth: CallerAuth::none(),
        }
    }
}

pub(crate) async fn serve<P, D, H>(over: Over, dialect: D, handler: Arc<H>) -> Server
where
    P: Protocol,
    D: Dialect<P>,
    H: Handler<P>,
{
    serve_at("127.0.0.1:0".parse().unwrap(), over, dialect, handler).await
}

pub(crate) async fn serve_at<P, D, H>(
    addr: SocketAddr,
    over: Over,
    dialect: D,
    handler: Arc<H>,
) -> Server
where
    P: Protocol,
    D: Dialect<P>,
    H: Handler<P>,
{
    let tcp = TcpListener::bind(addr).await.unwrap();
    let (limits, buffers) = (
        Limits::default(),
        Buffers::new(64 << 20, MemoryBudget::unbounded()),
    );
    let Over { tls, auth } = over;
    let tls = tls.map(Into::into);
    let listener = GrpcListener::new(tcp, tls, auth, dialect, limits, buffers).unwrap();
    let drain = Drain::new();
    let addr = listener.local_addr();
    let serving = tokio::spawn(listener.serve(handler, drain.clone()));
    Server {
        addr,
        drain,
        _serving: AbortOnDropHandle::new(serving),
    }
}

/// The same over plain HTTP.
pub(crate) async fn serve_rest<H: Handler<Fleet>>(
    tls: Option<Arc<rustls::ServerConfig>>,
    dialect: FleetF1,
    handler: Arc<H>,
) -> Server {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (limits, buffers) = (
        Limits::default(),
        Buffers::new(64 << 20, MemoryBudget::unbounded()),
    );
    let tls = tls.map(Into::into);
    let listener = RestListener::new(tcp, tls, dialect, limits, buffers).unwrap();
    let drain = Drain::new();
    let addr = listener.local_addr();
    let serving = tokio::spawn(listener.serve(handler, drain.clone()));
    Server {
        addr,
        drain,
        _serving: AbortOnDropHandle::new(serving),
    }
}

pub(crate) fn connector<A>(addr: SocketAddr, asking: A) -> GrpcConnector<A> {
    connector_with(addr, None, Credentials::none(), asking)
}

pub(crate) fn connector_with<A>(
    addr: SocketAddr,
    tls: Option<ClientTls>,
    credentials: Credentials,
    asking: A,
) -> GrpcConnector<A> {
    let tls = tls.map(Current::new);
    GrpcConnector::new(addr.ip().to_string(), addr.port(), tls, credentials, asking)
}

pub(crate) async fn connect<P: Protocol, A: Asking<P>>(
    addr: SocketAddr,
    asking: A,
) -> GrpcCaller<A> {
    soon(Connector::<P>::connect(&connector(addr, asking)))
        .await
        .unwrap()
}

type Answered<P> = Pin<Box<dyn Future<Output = Result<Reply<P>, Status>> + Send>>;

/// Answers with a closure and remembers the calls.
pub(crate) struct Scripted<P: Protocol> {
    answer: Box<dyn Fn(Context, Call<P>) -> Answered<P> + Send + Sync>,
    pub(crate) asked: Mutex<Vec<(Context, String)>>,
}

impl<P: Protocol> Scripted<P> {
    pub(crate) fn new<F>(
        answer: impl Fn(Context, Call<P>) -> F + Send + Sync + 'static,
    ) -> Arc<Self>
    where
        F: Future<Output = Result<Reply<P>, Status>> + Send + 'static,
    {
        Arc::new(Self {
            answer: Box::new(move |context, call| Box::pin(answer(context, call))),
            asked: Mutex::default(),
        })
    }

    /// Answers every call with the same response.
    pub(crate) fn saying(response: P::Response) -> Arc<Self>
    where
        P::Response: Clone,
    {
        Self::new(move |_, _| std::future::ready(Ok(Reply::new(response.clone()))))
    }

    /// The last call's request as text, and its context.
    pub(crate) fn last(&self) -> (Context, String) {
        self.asked.lock().unwrap().last().unwrap().clone()
    }
}

impl<P: Protocol> Handler<P> for Scripted<P> {
    async fn handle(&self, context: Context, call: Call<P>) -> Result<Reply<P>, Status> {
        let asked = (context.clone(), format!("{:?}", call.request));
        self.asked.lock().unwrap().push(asked);
        (self.answer)(context, call).await
    }
}

impl<P: Protocol> fmt::Debug for Scripted<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

pub(crate) fn fleet_call(request: flwr_api::fleet::Request) -> Call<Fleet> {
    Call::new(request, later())
}

/// A body that comes in `pieces` pieces of `piece_bytes`.
pub(crate) fn in_pieces(bytes: &Bytes, piece_bytes: usize) -> Body {
    let bytes = bytes.clone();
    let starts: Vec<usize> = (0..bytes.len()).step_by(piece_bytes).collect();
    let len = bytes.len();
    let pieces = starts
        .into_iter()
        .map(move |start| Ok(bytes.slice(start..(start + piece_bytes).min(len))));
    Body::from_stream(Some(len as u64), futures_util::stream::iter(pieces))
}

/// Bytes that differ everywhere.
pub(crate) fn pattern(len: usize) -> Bytes {
    let byte = |at: usize| u8::try_from((at ^ (at >> 8) ^ (at >> 16)) & 0xff).unwrap();
    (0..len).map(byte).collect::<Vec<_>>().into()
}

/// A message whose only object is given.
pub(crate) fn message(
    run: RunId,
    src: NodeId,
    dst: NodeId,
    reply_to: &str,
    root: ObjectId,
    created_at: UnixTime,
) -> Message {
    Message {
        metadata: Metadata {
            run,
            id: MessageId::from(root),
            src,
            dst,
            reply_to: MessageId::new(reply_to),
            group_id: "1".into(),
            ttl: if reply_to.is_empty() { 3600.0 } else { 1.0 },
            message_type: "train".into(),
            created_at,
        },
        payload: Payload::Content(Bytes::new()),
    }
}

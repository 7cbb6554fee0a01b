//! The services of a SuperLink, from sockets to state: the one place where all its parts meet.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use flwr_api::{
    appio::{AppIo, Serve},
    control, fleet,
};
use flwr_certs::AllowList;
use flwr_compat_grpc::{
    Buffers, CallerAuth, Dialect, GrpcListener, Holds, Limits,
    f1::{Adapter, AppIoF1, ControlF1, FleetF1, RestListener, SimulationIoF1},
    health::Health,
};
use flwr_state::{Clock, DiskFabs, Fabs, LinkState, SystemClock};
use flwr_superlink::{Config, Runtime, SuperLink, SystemEntropy};
use flwr_transport::{Acceptor, Counted, Current, Drain, Handler, Protocol};
use tokio::{net::TcpListener, task::JoinSet};

use super::{appio, quic::Quic, state::Backend, superlink::crashed};
use crate::{
    args::superlink::FleetApiType,
    exit::Exit,
    listen::Listener,
    memory::Memory,
    metrics::{Exporter, Watched},
    renewal::Renewals,
};

/// What a SuperLink serves with; everything in it is checked.
#[derive(Debug)]
pub(crate) struct Parts {
    /// How much memory it uses for what passes through it.
    pub(crate) memory: Memory,
    /// Listens for the `flwr` command.
    pub(crate) control: Listener,
    /// Listen for SuperExecs and ServerApps; at least one.
    pub(crate) appio: Vec<appio::Port>,
    /// What SuperNodes are served with; without it, runs are simulations.
    pub(crate) fleet: Option<Fleet>,
    /// Listens for health checks; never TLS.
    pub(crate) health: Option<Listener>,
    /// Serves metrics.
    pub(crate) metrics: Option<Exporter>,
    /// TLS of Control; without it that serves in the clear.
    pub(crate) tls: Option<Current<rustls::ServerConfig>>,
    /// What of that can change.
    pub(crate) renewals: Renewals,
    /// Where FABs are stored; may not exist yet.
    pub(crate) storage_dir: PathBuf,
    /// How long runs are remembered that have finished.
    pub(crate) keep_runs: Duration,
    /// The longest that a call is held; zero answers at once, none leaves it to each call.
    pub(crate) hold_max: Option<Duration>,
}

/// What SuperNodes are served with.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// Listens for those that come by TCP.
    pub(crate) listener: Option<Listener>,
    /// Serves those that come by QUIC.
    pub(crate) quic: Option<Quic>,
    /// The nodes that may join; without it every node may, with a key of its own.
    pub(crate) allow_list: Option<Arc<AllowList>>,
    /// TLS for them; without it they are served in the clear.
    pub(crate) tls: Option<Current<rustls::ServerConfig>>,
    /// What they speak.
    pub(crate) api_type: FleetApiType,
}

impl Parts {
    /// What executes runs.
    pub(crate) fn runtime(&self) -> Runtime {
        match self.fleet {
            Some(_) => Runtime::Deployment,
            None => Runtime::Simulation,
        }
    }
}

/// Serves until the drain is asked and the calls under way are finished.
///
/// # Errors
/// When a service ends without being asked.
pub(crate) async fn serve(state: Backend, parts: Parts, drain: Drain) -> Result<(), Exit> {
    let limits = parts.memory.within(Limits::default());
    match state {
        Backend::Memory(state) => serve_state(state, parts, limits, drain).await,
        Backend::Embedded(state) => {
            let limits = Limits {
                streams_objects: true,
                ..limits
            };
            serve_state(state, parts, limits, drain).await
        }
    }
}

async fn serve_state<S: LinkState>(
    state: S,
    parts: Parts,
    limits: Limits,
    drain: Drain,
) -> Result<(), Exit> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let fabs = DiskFabs::new(&parts.storage_dir);
    let holds = match parts.hold_max {
        Some(cap) => Holds::default().capped(cap),
        None => Holds::default(),
    };
    let runtime = parts.runtime();
    let mut serving = Serving::new(drain.clone(), limits, parts.memory, KEPT_BUFFER_BYTES);
    let config = Config {
        keep_runs: parts.keep_runs,
    };
    let link = SuperLink::new(state, fabs, clock, Arc::new(SystemEntropy), config);

    let control = Arc::new(control::Serve(link.control(runtime)));
    serving.grpc(
        parts.control,
        parts.tls,
        CallerAuth::none,
        ControlF1,
        &control,
    )?;

    for port in parts.appio {
        let handler = Arc::new(Serve(link.appio(port.launchers)));
        match runtime {
            Runtime::Deployment => serving.appio(port, AppIoF1 { holds }, &handler)?,
            Runtime::Simulation => serving.appio(port, SimulationIoF1 { holds }, &handler)?,
        }
    }

    if let Some(fleet) = parts.fleet {
        serving.fleet(fleet, FleetF1 { holds }, &link)?;
    }
    if let Some(health) = parts.health {
        serving.health(health)?;
    }
    if let Some(metrics) = parts.metrics {
        serving.metrics(metrics, Arc::new(link.clone()));
    }
    serving.tasks.spawn(async move {
        link.sweep(&drain).await;
        Ok(())
    });
    serving.until_drained().await
}

/// The services of a process at work.
pub(super) struct Serving {
    tasks: JoinSet<Result<(), Exit>>,
    /// Goes on until all of the above are done.
    metrics: JoinSet<()>,
    drain: Drain,
    limits: Limits,
    memory: Memory,
    buffers: Buffers,
}

impl Serving {
    /// Nothing is served yet. At most `kept_bytes` of the memory are kept for the next large messages.
    pub(super) fn new(drain: Drain, limits: Limits, memory: Memory, kept_bytes: usize) -> Self {
        let kept_bytes = memory.of_buffers(kept_bytes);
        Self {
            tasks: JoinSet::new(),
            metrics: JoinSet::new(),
            drain,
            limits,
            memory,
            buffers: Buffers::new(kept_bytes, memory.of_calls()),
        }
    }

    /// Serves SuperNodes.
    fn fleet<S: LinkState, F: Fabs>(
        &mut self,
        parts: Fleet,
        dialect: FleetF1,
        link: &SuperLink<S, F>,
    ) -> Result<(), Exit> {
        let is_authenticated = parts.api_type == FleetApiType::GrpcRere;
        let handler = Arc::new(fleet::Serve(link.fleet(!is_authenticated)));
        let tls = parts.tls;
        if let Some(quic) = parts.quic {
            for acceptor in quic.for_nodes(parts.allow_list.as_ref(), self.memory)? {
                self.spawn(acceptor, &handler);
            }
        }
        let Some(listener) = parts.listener else {
            return Ok(());
        };
        match parts.api_type {
            FleetApiType::GrpcAdapter => {
                let adapter = Adapter(dialect);
                self.grpc(listener, tls, CallerAuth::none, adapter, &handler)
            }
            FleetApiType::GrpcRere => {
                let list = parts.allow_list;
                let auth = || CallerAuth::signed(list.clone(), || SystemClock.now().seconds());
                self.grpc(listener, tls, auth, dialect, &handler)
            }
            FleetApiType::Rest => self.rest(listener, tls, dialect, &handler),
        }
    }

    /// Serves apps and their launchers.
    pub(super) fn appio<D, H>(
        &mut self,
        port: appio::Port,
        dialect: D,
        handler: &Arc<H>,
    ) -> Result<(), Exit>
    where
        D: Dialect<AppIo> + Copy,
        H: Handler<AppIo>,
    {
        let secret = port.secret.clone();
        if let Some(quic) = port.quic {
            for acceptor in quic.for_launchers(secret.as_ref(), self.memory)? {
                self.spawn(acceptor, handler);
            }
        }
        self.grpc(
            port.listener,
            port.tls,
            || appio::auth(secret.as_ref()),
            dialect,
            handler,
        )
    }

    /// Serves a handler on every socket of a listener.
    pub(super) fn grpc<P, D, H>(
        &mut self,
        listener: Listener,
        tls: Option<Current<rustls::ServerConfig>>,
        auth: impl Fn() -> CallerAuth,
        dialect: D,
        handler: &Arc<H>,
    ) -> Result<(), Exit>
    where
        P: Protocol,
        D: Dialect<P> + Copy,
        H: Handler<P>,
    {
        for socket in listener.sockets {
            let listener = self.listen(socket, tls.clone(), auth(), dialect)?;
            self.spawn(listener, handler);
        }
        Ok(())
    }

    /// Serves SuperNodes that speak plain HTTP.
    fn rest(
        &mut self,
        listener: Listener,
        tls: Option<Current<rustls::ServerConfig>>,
        dialect: FleetF1,
        handler: &Arc<impl Handler<fleet::Fleet>>,
    ) -> Result<(), Exit> {
        for socket in listener.sockets {
            let (limits, buffers) = (self.limits, self.buffers.clone());
            let listener = RestListener::new(socket, tls.clone(), dialect, limits, buffers)
                .map_err(|error| Exit::because(&error))?;
            self.spawn(listener, handler);
        }
        Ok(())
    }

    fn spawn<P: Protocol, H: Handler<P>>(&mut self, acceptor: impl Acceptor<P>, handler: &Arc<H>) {
        let (handler, drain) = (Arc::new(Counted(Arc::clone(handler))), self.drain.clone());
        self.tasks.spawn(async move {
            let served = acceptor.serve(handler, drain).await;
            served.map(|_| ()).map_err(|error| Exit::because(&error))
        });
    }

    fn listen<D>(
        &self,
        socket: TcpListener,
        tls: Option<Current<rustls::ServerConfig>>,
        auth: CallerAuth,
        dialect: D,
    ) -> Result<GrpcListener<D>, Exit> {
        let (limits, buffers) = (self.limits, self.buffers.clone());
        let listener: io::Result<_> =
            GrpcListener::new(socket, tls, auth, dialect, limits, buffers);
        listener.map_err(|error| Exit::because(&error))
    }

    pub(super) fn health(&mut self, listener: Listener) -> Result<(), Exit> {
        for socket in listener.sockets {
            let listener = self.listen(socket, None, CallerAuth::none(), Health)?;
            let drain = self.drain.clone();
            self.tasks.spawn(async move {
                listener.serve_health(drain).await;
                Ok(())
            });
        }
        Ok(())
    }

    /// Tells whoever asks how `daemon` is.
    pub(super) fn metrics(&mut self, exporter: Exporter, daemon: Arc<dyn Watched>) {
        self.metrics
            .spawn(exporter.serve(daemon, self.drain.clone()));
    }

    /// Waits for all of them; the first that fails, or ends unasked, ends the wait.
    pub(super) async fn until_drained(mut self) -> Result<(), Exit> {
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok(Ok(())) if self.drain.is_requested() => {}
                Ok(Ok(())) => return Err(crashed("A service ended without being asked to.")),
                Ok(Err(exit)) => return Err(exit),
                Err(error) => return Err(crashed(&format!("A service crashed: {error}."))),
            }
        }
        // A SuperExec may serve nothing but metrics, which go on until this returns.
        self.drain.requested().await;
        Ok(())
    }
}

/// Memory kept for the next round's objects, in bytes: a dozen of the chunks that Flower cuts arrays into.
const KEPT_BUFFER_BYTES: usize = 256 << 20;

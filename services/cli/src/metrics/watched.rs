//! What is asked of a daemon when somebody wants to know how it is.

use std::{future::Future, time::Duration};

use flwr_state::{Fabs, LinkState};
use flwr_superlink::SuperLink;
use flwr_supernode::SuperNode;
use flwr_transport::{LinkState as Connection, Standing};
use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::{sync::watch, time::timeout};
use tracing::warn;

use crate::exit::sentence;

/// A daemon at work.
pub(crate) trait Watched: Send + Sync + 'static {
    /// Brings the gauges of its work up to date.
    fn survey(&self) -> BoxFuture<'_, ()>;

    /// Whether it is of use at present.
    ///
    /// # Errors
    /// Why it is not, in a sentence.
    fn check(&self) -> BoxFuture<'_, Result<(), String>>;
}

impl<S: LinkState, F: Fabs> Watched for SuperLink<S, F> {
    fn survey(&self) -> BoxFuture<'_, ()> {
        async {
            match in_time(self.survey()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(
                    "Metrics of the state are those of before: {}",
                    sentence(&error)
                ),
                Err(why) => warn!("Metrics of the state are those of before: {why}"),
            }
        }
        .boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        async {
            let checked = in_time(self.check()).await;
            let checked = checked.and_then(|kept| kept.map_err(|error| sentence(&error)));
            checked.map_err(|why| format!("the state cannot be kept: {why}"))
        }
        .boxed()
    }
}

/// A SuperNode, and its connection to the SuperLink.
pub(crate) struct WatchedNode {
    pub(crate) node: SuperNode,
    pub(crate) connection: watch::Receiver<Connection>,
}

impl Watched for WatchedNode {
    fn survey(&self) -> BoxFuture<'_, ()> {
        self.node.survey();
        std::future::ready(()).boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        let checked = check(&self.connection, self.node.standing(), "SuperLink");
        std::future::ready(checked).boxed()
    }
}

/// A SuperExec's connection to its daemon, and what that says to it.
pub(crate) struct WatchedLauncher {
    pub(crate) standing: Standing,
    pub(crate) connection: watch::Receiver<Connection>,
}

impl Watched for WatchedLauncher {
    fn survey(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        let checked = check(&self.connection, &self.standing, "daemon");
        std::future::ready(checked).boxed()
    }
}

fn check(
    connection: &watch::Receiver<Connection>,
    standing: &Standing,
    peer: &str,
) -> Result<(), String> {
    match &*connection.borrow() {
        Connection::Connected(_) => standing.check(),
        Connection::Idle => Err(format!("the {peer} has not been called yet")),
        Connection::Lost(why) => Err(format!("the connection to the {peer} is lost: {why}")),
        Connection::Retrying { why, .. } => Err(format!("the {peer} cannot be reached: {why}")),
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let answered = timeout(PATIENCE, work).await;
    answered.map_err(|_| format!("there is no answer within {} s", PATIENCE.as_secs()))
}

/// How long a state may take to answer: less than whoever asks waits.
const PATIENCE: Duration = Duration::from_secs(5);

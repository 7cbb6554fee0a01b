//! Answers that are longer than a call may be: app bundles.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flwr_api::fleet::{Fleet, FleetClient, GetFab, Request, Response};
use flwr_api::{Fab, FabHash, NodeId, RunId};
use flwr_transport::{
    Acceptor as _, Call, Connector as _, Context, Drain, Handler, Reply, Status, Tail,
};
use flwr_transport_quic::{Connector, Options, Tuning};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::support::{Site, listen};

/// Has one app bundle.
struct Shelf(Fab);

impl Handler<Fleet> for Shelf {
    async fn handle(&self, _: Context, call: Call<Fleet>) -> Result<Reply<Fleet>, Status> {
        match call.request {
            Request::GetFab(asked) if asked.hash == self.0.hash => Ok(Reply {
                response: Response::GetFab(self.0.clone()),
                tail: Tail::None,
            }),
            other => Err(Status::unimplemented(&format!("{other:?}"))),
        }
    }
}

/// Bytes of which no piece can take the place of another.
fn content(bytes: usize) -> Bytes {
    let numbers = (0_u64..).flat_map(u64::to_le_bytes);
    numbers.take(bytes).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn an_app_bundle_may_be_larger_than_a_call_and_than_every_window() {
    let (connecting, accepting) = (Tuning::connecting(), Tuning::accepting());
    let window = u64::from(connecting.receive_window).max(accepting.send_window);
    let bytes = usize::try_from(window).unwrap().max(CALL_BYTES_MAX) + 1;
    let content = content(bytes);
    let hash = FabHash::of(&content);

    let site = Site::get();
    let acceptor = listen::<Fleet>(site, Options::default());
    let connector = Connector::<Fleet>::new(site.target(&acceptor), &site.as_node(), &connecting);
    let shelf = Arc::new(Shelf(Fab { hash, content }));
    let _serving = AbortOnDropHandle::new(tokio::spawn(async move {
        acceptor.serve(shelf, Drain::new()).await.unwrap();
    }));
    let caller = connector.unwrap().connect().await.unwrap();
    let client = FleetClient::new(Arc::new(caller));
    let (node, run) = (NodeId(2), RunId(1));
    let call = GetFab { node, run, hash };
    let fab = client.fab(call, Instant::now() + SOON).await.unwrap();
    assert_eq!((fab.content.len(), fab.hash), (bytes, hash));
    assert_eq!(FabHash::of(&fab.content), hash);
}

/// The longest call (`tuning.rs`).
const CALL_BYTES_MAX: usize = 32 << 20;
const SOON: Duration = Duration::from_secs(60);

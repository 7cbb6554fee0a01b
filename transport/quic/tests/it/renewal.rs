//! Certificates that are replaced while connections are open.

use std::sync::Arc;
use std::time::Duration;

use flwr_transport::conformance::{Answer, Ask, Service, Toy};
use flwr_transport::{Acceptor as _, Call, Caller as _, Connector as _, Current, Drain};
use flwr_transport_quic::{Acceptor, Caller, Connector, Tuning};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::support::{Site, listen_with};

fn serve(acceptor: Acceptor<Toy>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let service = Arc::new(Service::default());
        acceptor.serve(service, Drain::new()).await.unwrap();
    }))
}

async fn echo(caller: &Caller<Toy>) -> bool {
    let asked = Call::new(Ask::Echo("hello".into()), Instant::now() + SOON);
    let answered = caller.call(asked).await;
    answered.is_ok_and(|reply| reply.response == Answer::Echo("hello".into()))
}

#[tokio::test]
async fn connections_outlive_a_change_and_sessions_do_not() {
    let (before, after) = (Site::make(), Site::make());
    let tls = Current::from(before.server());
    let acceptor = listen_with::<Toy>(tls.clone(), before.options());
    let target = before.target(&acceptor);
    let _serving = serve(acceptor);

    let trust = Current::new(before.anonymous());
    let following = Connector::<Toy>::new(target.clone(), trust.clone(), &Tuning::connecting());
    let following = following.unwrap();
    let set = Connector::<Toy>::new(target, &before.anonymous(), &Tuning::connecting()).unwrap();
    let open = following.connect().await.unwrap();
    assert!(echo(&open).await && echo(&set.connect().await.unwrap()).await);

    tls.replace(Arc::new(after.server().clone()));
    assert!(echo(&open).await, "what is open goes on");
    // It has a session of before, which is worth nothing now; and it does not trust the new CA.
    let again = set.connect().await;
    assert!(match again {
        Ok(caller) => !echo(&caller).await,
        Err(error) => error.message.contains("TLS handshake failed"),
    });
    trust.replace(Arc::new(after.anonymous()));
    assert!(echo(&following.connect().await.unwrap()).await);
    assert!(echo(&open).await);
}

/// For a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(60);

//! Proofs in the hello, of bytes that TLS exports.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use flwr_transport::conformance::{Answer, Ask, Service, Toy};
use flwr_transport::{
    Acceptor as _, Call, Caller as _, Code, Connector as _, Drain, Identity, PublicKey, Status,
};
use flwr_transport_quic::{Connector, Options, Prove, Tuning};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::support::{Site, listen};

/// Answers a call on a connection with this prover, from an acceptor that wants the exported bytes as proof and takes
/// them for a key. `seen` gets the identities.
async fn ask(prove: Option<Prove>, seen: &Arc<Mutex<Vec<Identity>>>) -> Result<Answer, Status> {
    let site = Site::get();
    let seen = Arc::clone(seen);
    let identify = move |shown: flwr_transport_quic::Shown<'_>| {
        let identity = match &shown.proof {
            None => Identity::Anonymous,
            Some(proof) if proof.bytes == proof.exported => {
                Identity::NodeKey(PublicKey::from_spki_der(proof.exported.to_vec().into()))
            }
            Some(_) => return Err("the proof is not for this connection".into()),
        };
        seen.lock().unwrap().push(identity.clone());
        Ok(identity)
    };
    let options = Options {
        identify: Arc::new(identify),
        ..Options::default()
    };
    let acceptor = listen::<Toy>(site, options);
    let target = site.target(&acceptor);
    let connector = Connector::<Toy>::new(target, &site.anonymous(), &Tuning::connecting());
    let connector = connector.unwrap().proving(prove);
    let _serving = AbortOnDropHandle::new(tokio::spawn(async move {
        let served = acceptor.serve(Arc::new(Service::default()), Drain::new());
        served.await.unwrap();
    }));
    let caller = connector
        .connect()
        .await
        .map_err(|error| Status::new(Code::FailedPrecondition, error.message))?;
    let call = Call::new(Ask::Echo("hello".into()), Instant::now() + SOON);
    caller.call(call).await.map(|reply| reply.response)
}

#[tokio::test]
async fn both_ends_export_the_same_and_connections_differ() {
    let seen = Arc::default();
    for _ in 0..2 {
        let echo: Prove = Arc::new(|exported| Ok(exported.to_vec()));
        let answer = ask(Some(echo), &seen).await.unwrap();
        assert_eq!(answer, Answer::Echo("hello".into()));
    }
    ask(None, &seen).await.unwrap();
    let seen = seen.lock().unwrap();
    let [
        Identity::NodeKey(one),
        Identity::NodeKey(other),
        Identity::Anonymous,
    ] = &seen[..]
    else {
        panic!("{seen:?}");
    };
    assert_ne!(one, other);
    assert_eq!(one.spki_der().len(), 32);
}

#[tokio::test]
async fn a_proof_of_another_connection_is_refused() {
    let seen = Arc::default();
    let kept = Arc::new(Mutex::new(None));
    for is_refused in [false, true] {
        let kept = Arc::clone(&kept);
        let replay: Prove = Arc::new(move |exported| {
            let mut kept = kept.lock().unwrap();
            Ok(kept.get_or_insert_with(|| exported.to_vec()).clone())
        });
        match ask(Some(replay), &seen).await {
            Err(status) => {
                assert!(is_refused, "{status:?}");
                assert_eq!(status.code, Code::Unauthenticated);
                assert_eq!(status.message, "the proof is not for this connection");
            }
            Ok(_) => assert!(!is_refused),
        }
    }
}

#[tokio::test]
async fn without_a_proof_there_is_no_connection() {
    let fails: Prove = Arc::new(|_| Err("no randomness".into()));
    let status = ask(Some(fails), &Arc::default()).await.unwrap_err();
    assert_eq!(status.message, "no randomness");
}

const SOON: Duration = Duration::from_secs(15);

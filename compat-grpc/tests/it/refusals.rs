//! Statuses and reasons, through dialects and back.

use flwr_api::NodeId;
use flwr_api::Reason;
use flwr_api::fleet::{DeleteNode, Fleet, Request};
use flwr_compat_grpc::Holds;
use flwr_compat_grpc::f1::ask::{AdapterAsker, FleetAsker};
use flwr_compat_grpc::f1::{Adapter, FleetF1};
use flwr_transport::{Call, Caller, Code, Status};
use tokio_util::sync::CancellationToken;

use crate::support::{Over, Scripted, connect, fleet_call, serve, soon};

fn refusals() -> Vec<Status> {
    let plain = Code::ALL.map(|code| Status::new(code, "because of 100 % \u{1f338}\nthat"));
    let numbered = (1..=u16::MAX).filter_map(|number| {
        let reason = Reason::of(&Status::new(Code::Internal, "").with_reason(number))?;
        Some(reason.refuse("because"))
    });
    plain.into_iter().chain(numbered).collect()
}

async fn check(caller: &impl Caller<Fleet>) {
    for (index, expected) in refusals().into_iter().enumerate() {
        let node = NodeId(index as u64);
        let call = fleet_call(Request::DeleteNode(DeleteNode { node }));
        let came = soon(caller.call(call)).await.unwrap_err();
        let code = match expected.code {
            Code::Draining => Code::Unavailable,
            code => code,
        };
        assert_eq!(
            (came.code, came.reason),
            (code, expected.reason),
            "{expected:?}"
        );
        if expected.reason == 0 {
            assert_eq!(came.message, expected.message);
        }
    }
}

#[tokio::test]
async fn every_refusal_comes_back_as_it_went() {
    let handler = || {
        Scripted::new(|_, call: Call<Fleet>| async move {
            let Request::DeleteNode(DeleteNode { node }) = call.request else {
                panic!("another call")
            };
            Err(refusals().swap_remove(usize::try_from(node.0).unwrap()))
        })
    };
    let holds = Holds::default();
    let server = serve(Over::default(), FleetF1 { holds }, handler()).await;
    check(&connect::<Fleet, _>(server.addr, FleetAsker).await).await;
    let server = serve(Over::default(), Adapter(FleetF1 { holds }), handler()).await;
    let asker = AdapterAsker::new(CancellationToken::new());
    check(&connect::<Fleet, _>(server.addr, asker).await).await;
}

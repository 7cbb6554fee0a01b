//! Who may launch apps, and what may be submitted where.

use std::time::Duration;

use flwr_api::Launchers;
use flwr_api::appio::{self, AppIoService};
use flwr_api::control::{ControlService, StartRun};
use flwr_superlink::Runtime;
use flwr_transport::{Bearer, Code, Context, Identity, Status};

use crate::world::{World, fab};

#[tokio::test(start_paused = true)]
async fn where_launchers_must_prove_themselves_nobody_else_launches() -> Result<(), Status> {
    let world = World::new();
    let appio = world.link.appio(Launchers::Proven);
    let run = world.submit().await;
    let app = world.start(run).await;
    let launcher = world.context(Identity::Launcher);
    let mut launcher_of_app = launcher.clone();
    launcher_of_app.bearer.clone_from(&app.bearer);
    let outcomes = async |context: &Context| {
        let wait = Duration::ZERO;
        let how = "exit status 0".into();
        [
            appio
                .list_apps_to_launch(context, appio::ListAppsToLaunch { wait })
                .await
                .err(),
            appio
                .request_token(context, appio::RequestToken { run })
                .await
                .err(),
            appio
                .watch_app(context, appio::WatchApp { wait })
                .await
                .err(),
            appio
                .report_app_exit(context, appio::ReportAppExit { how })
                .await
                .err(),
        ]
    };
    for context in [&world.by_app(), &world.by_node(1), &app] {
        for refused in outcomes(context).await {
            let refused = refused.unwrap();
            assert_eq!(refused.code, Code::Unauthenticated);
            assert!(refused.message.contains("join secret"), "{refused}");
        }
    }
    assert_eq!(outcomes(&launcher_of_app).await, [None, None, None, None]);
    // Apps need their token and nothing else.
    let run = world.submit().await;
    let token = appio
        .request_token(&launcher, appio::RequestToken { run })
        .await?
        .unwrap();
    let mut app = world.by_app();
    app.bearer = Some(Bearer::new(token.expose()));
    let wait = Duration::ZERO;
    let inputs = appio.pull_inputs(&app, appio::PullInputs { wait }).await?;
    assert_eq!(inputs.run.id, run);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_simulation_needs_to_know_how_many_nodes_to_simulate() -> Result<(), Status> {
    let world = World::new();
    let control = world.link.control(Runtime::Simulation);
    let submitted = async |names: &[&str]| {
        let call = StartRun {
            fab: fab(),
            hash: None,
            overrides: [].into(),
            federation: String::new(),
            options: Some("encoded".into()),
            option_names: names.iter().map(ToString::to_string).collect(),
        };
        control.start_run(&world.by_app(), call).await
    };
    assert_eq!(submitted(&[]).await?, None);
    assert_eq!(submitted(&["num-nodes"]).await?, None);
    let run = submitted(&["backend.name", "num-supernodes"])
        .await?
        .unwrap();
    let call = appio::GetFederationOptions { run };
    let options = world
        .appio
        .federation_options(&world.by_app(), call)
        .await?;
    assert_eq!(options, "encoded");
    Ok(())
}

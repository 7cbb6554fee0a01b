//! Runs that wait for a ServerApp, and ServerApps that are lost.

use std::sync::Arc;
use std::time::Duration;

use flwr_api::appio::{self, AppIoService};
use flwr_api::control::{ControlService, StreamLogs};
use flwr_api::{Phase, RunId, RunStatus, SubStatus, UnixTime};
use flwr_transport::{Context, Status};
use futures_util::StreamExt;
use tokio::time::{Instant, advance};

use crate::world::World;

async fn launchable(world: &World, wait_seconds: u64) -> Vec<RunId> {
    let wait = Duration::from_secs(wait_seconds);
    let call = appio::ListAppsToLaunch { wait };
    world
        .appio
        .list_apps_to_launch(&world.by_app(), call)
        .await
        .unwrap()
}

async fn claim(world: &World, run: RunId) -> bool {
    let call = appio::RequestToken { run };
    world
        .appio
        .request_token(&world.by_app(), call)
        .await
        .unwrap()
        .is_some()
}

#[tokio::test(start_paused = true)]
async fn a_submitted_run_ends_the_wait_and_a_claimed_one_does_not() {
    let world = World::new();
    let (appio, context) = (Arc::clone(&world.appio), world.by_app());
    let call = appio::ListAppsToLaunch {
        wait: Duration::from_secs(25),
    };
    let held = tokio::spawn(async move { appio.list_apps_to_launch(&context, call).await });
    tokio::task::yield_now().await;
    let (first, second) = (world.submit().await, world.submit().await);
    assert_eq!(held.await.unwrap().unwrap()[0], first);
    assert_eq!(launchable(&world, 0).await, [first, second]);
    assert!(claim(&world, first).await);
    assert!(!claim(&world, first).await);
    assert_eq!(launchable(&world, 0).await, [second]);
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_dies_gives_its_run_back_after_a_minute() {
    let world = World::new();
    let run = world.submit().await;
    assert!(claim(&world, run).await);
    let start = Instant::now();
    let mut found = Vec::new();
    while found.is_empty() {
        found = launchable(&world, 25).await;
    }
    assert_eq!(found, [run]);
    assert!(
        (60..61).contains(&start.elapsed().as_secs()),
        "{:?}",
        start.elapsed()
    );
    assert!(claim(&world, run).await);
}

#[tokio::test(start_paused = true)]
async fn a_lost_app_fails_its_run_in_time_and_wakes_log_readers() -> Result<(), Status> {
    let world = World::new();
    let run = world.running().await;
    let (link, drain) = (world.link.clone(), world.drain.clone());
    let sweeping = tokio::spawn(async move { link.sweep(&drain).await });
    let call = appio::Heartbeat {
        run,
        heartbeat_interval: 30.0,
    };
    assert!(world.appio.heartbeat(&world.by_app(), call.clone()).await?);
    let start = Instant::now();
    let logs = StreamLogs {
        run,
        after: UnixTime::new(0.0),
    };
    let ((), mut events) = world.control.stream_logs(&world.by_app(), logs).await?;
    assert!(events.next().await.is_none());
    assert!(
        (60..61).contains(&start.elapsed().as_secs()),
        "{:?}",
        start.elapsed()
    );

    let call_run = appio::GetRun { run };
    let status = world
        .appio
        .run(&world.by_app(), call_run)
        .await?
        .unwrap()
        .status;
    assert_eq!(
        (status.phase, status.sub),
        (Phase::Finished, SubStatus::Failed)
    );
    assert_eq!(status.details, "No heartbeat received from the run.");
    // An app that comes back late is told yes, or it would hang.
    assert!(world.appio.heartbeat(&world.by_app(), call).await?);
    world.drain.begin();
    sweeping.await.unwrap();
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn logs_are_streamed_as_they_come_and_to_the_last() -> Result<(), Status> {
    let world = World::new();
    let run = world.running().await;
    let push = async |text: &str| {
        let text = text.to_owned();
        world
            .appio
            .push_logs(&world.by_app(), appio::PushLogs { run, text })
            .await
    };
    push("one\n").await?;
    let logs = StreamLogs {
        run,
        after: UnixTime::new(0.0),
    };
    let ((), mut events) = world.control.stream_logs(&world.by_app(), logs).await?;
    let first = events.next().await.unwrap()?;
    assert_eq!(first.text, "one\n");
    push("two\n").await?;
    assert_eq!(events.next().await.unwrap()?.text, "two\n");
    push("three\n").await?;
    world.stop(run).await;
    assert_eq!(events.next().await.unwrap()?.text, "three\n");
    assert!(events.next().await.is_none());

    let again = StreamLogs {
        run,
        after: first.latest,
    };
    let ((), events) = world.control.stream_logs(&world.by_app(), again).await?;
    let texts: Vec<_> = events.map(|chunk| chunk.unwrap().text).collect().await;
    assert_eq!(texts.concat(), "two\nthree\n");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_log_reader_is_told_of_a_shutdown() {
    let world = World::new();
    let run = world.running().await;
    let logs = StreamLogs {
        run,
        after: UnixTime::new(0.0),
    };
    let context = world.by_app();
    let ((), mut events) = world.control.stream_logs(&context, logs).await.unwrap();
    world.drain.begin();
    assert!(events.next().await.unwrap().is_err());
    advance(Duration::from_secs(1)).await;
}

async fn standing(world: &World, context: &Context, wait_seconds: u64) -> appio::AppStanding {
    let wait = Duration::from_secs(wait_seconds);
    let call = appio::WatchApp { wait };
    world.appio.watch_app(context, call).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_launcher_learns_at_once_that_its_app_is_not_wanted_any_more() {
    let world = World::new();
    let run = world.submit().await;
    let app = world.start(run).await;
    let start = Instant::now();
    assert_eq!(standing(&world, &app, 20).await, appio::AppStanding::Wanted);
    assert_eq!(start.elapsed().as_secs(), 20);
    let (appio, context) = (Arc::clone(&world.appio), app.clone());
    let call = appio::WatchApp {
        wait: Duration::from_secs(3600),
    };
    let held = tokio::spawn(async move { appio.watch_app(&context, call).await });
    tokio::task::yield_now().await;
    let start = Instant::now();
    world.stop(run).await;
    assert_eq!(held.await.unwrap().unwrap(), appio::AppStanding::Unwanted);
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(
        standing(&world, &app, 20).await,
        appio::AppStanding::Unwanted
    );
    assert!(start.elapsed() < Duration::from_secs(1));
    let call = appio::WatchApp {
        wait: Duration::ZERO,
    };
    assert!(world.appio.watch_app(&world.by_app(), call).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_app_process_ends_early_fails_and_its_log_says_why() -> Result<(), Status> {
    let world = World::new();
    let (unstarted, begun) = (world.submit().await, world.submit().await);
    for (run, app) in [
        (unstarted, world.claimed(unstarted).await),
        (begun, world.start(begun).await),
    ] {
        let call = appio::ReportAppExit {
            how: "killed by signal 9".into(),
        };
        // A report that is repeated is one report.
        for _ in 0..2 {
            world.appio.report_app_exit(&app, call.clone()).await?;
        }
        let status = world.appio.run(&app, appio::GetRun { run }).await?;
        let status = status.unwrap().status;
        assert_eq!(
            (status.phase, status.sub),
            (Phase::Finished, SubStatus::Failed)
        );
        assert!(status.details.ends_with("killed by signal 9"), "{status:?}");
        let logs = StreamLogs {
            run,
            after: UnixTime::new(0.0),
        };
        let ((), events) = world.control.stream_logs(&world.by_app(), logs).await?;
        let texts: Vec<_> = events.map(|chunk| chunk.unwrap().text).collect().await;
        assert_eq!(texts.concat(), format!("{}\n", status.details));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_run_that_has_ended_well_does_not_care_how_its_process_ends() -> Result<(), Status> {
    let world = World::new();
    let run = world.submit().await;
    let app = world.start(run).await;
    let call = appio::UpdateRunStatus {
        run,
        status: Some(RunStatus::finished(SubStatus::Completed, "")),
    };
    world.appio.update_run_status(&app, call).await?;
    let call = appio::ReportAppExit {
        how: "exit status 1".into(),
    };
    world.appio.report_app_exit(&app, call).await?;
    let status = world.appio.run(&app, appio::GetRun { run }).await?;
    assert_eq!(status.unwrap().status.sub, SubStatus::Completed);
    assert_eq!(standing(&world, &app, 20).await, appio::AppStanding::Done);
    Ok(())
}

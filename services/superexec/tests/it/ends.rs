//! How apps end: by themselves, because they are not wanted, and with their launcher.

use std::time::Duration;

use flwr_api::{Phase, RunId, SubStatus};
use flwr_superexec::Kind;
use tokio::time::Instant;

use crate::world::{Plan, World, is_there, kill, wait_until};

/// Starts a world whose app has said its process id, and gives that.
async fn at_work(mut plan: Plan, kind: Kind) -> (World, i32) {
    plan.kind = kind;
    let world = plan.start().await;
    world.daemon.submit([7]);
    let pid = world.hears(7, "pid ").await.parse().unwrap();
    (world, pid)
}

#[tokio::test]
async fn ends_are_reported_as_they_were() {
    for (script, expected) in [
        ("exit 0", "exit status: 0"),
        ("exit 3", "exit status: 3"),
        ("kill -9 $$", "signal: 9 (SIGKILL)"),
    ] {
        let mut world = Plan::shell(script).start().await;
        world.daemon.submit([7]);
        assert_eq!(world.daemon.exit_of(7).await, expected);
        world.end().await;
    }
}

#[tokio::test]
async fn children_are_reaped_at_once_126() {
    let (mut world, pid) = at_work(Plan::shell("echo pid $$"), Kind::ClientApp).await;
    let begun = Instant::now();
    wait_until("reaped", || !is_there(pid)).await;
    assert!(begun.elapsed() < Duration::from_millis(500));
    world.end().await;
}

#[tokio::test]
async fn an_app_that_is_not_wanted_is_ended_with_what_it_started() {
    let script = "sleep 300 & echo pid $!; echo pid $$; wait";
    let (mut world, child) = at_work(Plan::shell(script), Kind::ClientApp).await;
    let begun = Instant::now();
    world.daemon.dismiss(7);
    let how = world.daemon.exit_of(7).await;
    assert_eq!(how, "ended because it was not wanted any more");
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "no need to insist"
    );
    wait_until("its child is gone", || !is_there(child)).await;
    world.end().await;
}

#[tokio::test]
async fn an_app_that_does_not_listen_is_killed() {
    let script = "trap '' TERM; echo pid $$; while :; do sleep 0.1; done";
    let (mut world, pid) = at_work(Plan::shell(script), Kind::ClientApp).await;
    let begun = Instant::now();
    world.daemon.dismiss(7);
    world.daemon.exit_of(7).await;
    assert!(
        begun.elapsed() >= Duration::from_secs(5),
        "it has five seconds"
    );
    assert!(!is_there(pid));
    world.end().await;
}

#[tokio::test]
async fn a_server_app_that_leaves_is_not_cut_short() {
    // Its run is finished, and it still has something to do.
    let script = "trap 'echo cut; exit 1' TERM; echo pid $$\n\
                  while [ ! -e \"$(dirname \"$0\")/end\" ]; do sleep 0.02; done; echo left";
    let (mut world, _pid) = at_work(Plan::shell(script), Kind::ServerApp).await;
    world.daemon.change(|state| state.done.extend([RunId(7)]));
    // Long enough for a launcher that does not care.
    tokio::time::sleep(Duration::from_millis(300)).await;
    std::fs::write(world.path("end"), "").unwrap();
    world.hears(7, "left").await;
    assert_eq!(world.daemon.exit_of(7).await, "exit status: 0");
    world.end().await;

    let (mut world, _pid) = at_work(Plan::shell(script), Kind::ServerApp).await;
    world.daemon.dismiss(7);
    world.hears(7, "cut").await;
    world.end().await;
}

#[tokio::test]
async fn with_the_launcher_all_apps_end() {
    let mut plan = Plan::shell("trap 'sleep 0.1; exit 9' TERM; echo pid $$; sleep 300 & wait");
    plan.apps_max = 3;
    let mut world = plan.start().await;
    world.daemon.submit([1, 2, 3]);
    let mut pids = Vec::new();
    for run in [1, 2, 3] {
        pids.push(world.hears(run, "pid ").await.parse::<i32>().unwrap());
    }
    world.end().await;
    for pid in pids {
        assert!(!is_there(pid));
    }
    for run in [1, 2, 3] {
        let how = world.daemon.exit_of(run).await;
        assert_eq!(how, "ended because its launcher shuts down");
    }
}

#[tokio::test]
async fn a_stock_daemon_learns_what_it_can_learn() {
    let check = async |kind, script, is_told: bool| {
        let mut plan = Plan::shell(script);
        plan.daemon.is_stock = true;
        let (mut world, pid) = at_work(plan, kind).await;
        kill(pid);
        wait_until("gone", || !is_there(pid)).await;
        world.end().await;
        let updates = world.daemon.read(|state| state.updates.clone());
        assert_eq!(updates.len(), usize::from(is_told), "{kind:?}: {updates:?}");
        if let Some((run, status)) = updates.first() {
            assert_eq!(
                (run.0, status.phase, status.sub),
                (7, Phase::Finished, SubStatus::Failed)
            );
            assert!(status.details.contains("SIGKILL"), "{status:?}");
        }
    };
    check(Kind::ServerApp, "echo pid $$; sleep 300", true).await;
    check(Kind::ClientApp, "echo pid $$; sleep 300", false).await;
}

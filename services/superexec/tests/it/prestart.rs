//! Processes that are started ahead.

use std::time::Duration;

use flwr_superexec::Warm;

use crate::world::{Plan, World, is_there, kill, wait_until};

fn plan(idle_max: usize) -> Plan {
    let mut plan = Plan::shell("echo \"pid $$\"; exec sleep 300");
    plan.is_relayed = true;
    plan.warm = Warm::Prestart;
    plan.idle_max = idle_max;
    plan.apps_max = 4;
    plan
}

/// The processes that have said that they wait, and are there.
fn idle(world: &World) -> Vec<i32> {
    let said = world.said();
    let pids = said
        .iter()
        .filter_map(|line| line.strip_prefix("[no run yet] pid "));
    pids.map(|pid| pid.parse().unwrap())
        .filter(|pid| is_there(*pid))
        .collect()
}

#[tokio::test]
async fn work_goes_to_a_process_that_waits_and_that_is_replaced() {
    let mut world = plan(1).start().await;
    wait_until("one waits", || idle(&world).len() == 1).await;
    let first = idle(&world)[0];
    world.daemon.submit([7]);
    wait_until("the next waits", || idle(&world).len() == 2).await;
    kill(first);
    assert_eq!(world.daemon.exit_of(7).await, "signal: 9 (SIGKILL)");
    world.end().await;
    assert_eq!(idle(&world), [0; 0], "none is left");
    assert_eq!(world.said().len(), 2, "none was started beside them");
}

#[tokio::test]
async fn without_a_process_that_waits_one_is_started() {
    let mut world = plan(1).start().await;
    wait_until("one waits", || idle(&world).len() == 1).await;
    world.daemon.submit([7, 8]);
    world.hears(8, "pid ").await;
    world.end().await;
    for run in [7, 8] {
        world.daemon.exit_of(run).await;
    }
}

#[tokio::test]
async fn an_idle_process_that_dies_is_replaced() {
    let mut world = plan(2).start().await;
    wait_until("two wait", || idle(&world).len() == 2).await;
    let dead = idle(&world)[0];
    kill(dead);
    wait_until("gone", || !is_there(dead)).await;
    wait_until("two wait again", || idle(&world).len() == 2).await;
    world.daemon.submit([7]);
    world
        .daemon
        .until("launched", |state| state.waiting.is_empty().then_some(()))
        .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.end().await;
    assert_eq!(
        world.daemon.exit_of(7).await,
        "ended because its launcher shuts down"
    );
    assert_eq!(idle(&world), [0; 0]);
}

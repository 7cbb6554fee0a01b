//! Asking for work and starting it.

use flwr_superexec::Kind;
use flwr_transport::{Code, Status};
use tokio::time::Instant;

use crate::daemon::{Daemon, token};
use crate::world::{Plan, wait_until};

/// The seconds between the first `count` questions for launches.
async fn gaps(daemon: &Daemon, count: usize) -> Vec<u64> {
    let asked = daemon
        .until("questions", |state| {
            (state.asked.len() > count).then(|| state.asked.clone())
        })
        .await;
    let between = |pair: &[Instant]| (pair[1] - pair[0]).as_secs();
    asked[..=count].windows(2).map(between).collect()
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_holds_is_asked_again_at_once() {
    let mut world = Plan::shell("exit 0").start().await;
    assert_eq!(gaps(&world.daemon, 3).await, [25, 25, 25]);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_stock_daemon_is_asked_once_a_second() {
    let mut plan = Plan::shell("exit 0");
    plan.daemon.is_stock = true;
    let mut world = plan.start().await;
    assert_eq!(gaps(&world.daemon, 3).await, [1, 1, 1]);
    world.end().await;
}

// In real time: the launch starts a process, which a paused clock would
// outrun.
#[tokio::test]
async fn after_a_launch_it_is_asked_again_at_once() {
    let mut plan = Plan::shell("exit 0");
    plan.apps_max = 2;
    plan.daemon.is_stock = true;
    plan.daemon.submit([7]);
    let mut world = plan.start().await;
    assert_eq!(gaps(&world.daemon, 2).await, [0, 1]);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_somebody_else_claims_is_left_alone() {
    let plan = Plan::shell("exit 0");
    plan.daemon.submit([7]);
    plan.daemon
        .change(|state| state.taken.extend([flwr_api::RunId(7)]));
    let mut world = plan.start().await;
    assert_eq!(gaps(&world.daemon, 3).await, [1, 1, 1]);
    world.end().await;
    assert_eq!(world.said(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn no_status_ends_the_launcher() {
    let plan = Plan::shell("exit 0");
    let failures = Code::ALL.map(|code| Status::new(code, "not now"));
    let count = failures.len();
    plan.daemon.change(|state| state.failures.extend(failures));
    let mut world = plan.start().await;
    let gaps = gaps(&world.daemon, count + 1).await;
    assert_eq!(gaps[..6], [1, 2, 4, 8, 10, 10]);
    assert_eq!(gaps[count..], [25], "it goes on as before");
    world.end().await;
}

#[tokio::test]
async fn the_launch_line_is_flowers_122() {
    for (kind, flag) in [
        (Kind::ClientApp, "--clientappio-api-address"),
        (Kind::ServerApp, "--serverappio-api-address"),
    ] {
        let mut plan = Plan::shell("for each in \"$@\"; do echo \"<$each>\"; done");
        plan.kind = kind;
        let mut world = plan.start().await;
        world.daemon.submit([7]);
        world.hears(7, "</flwr home>").await;
        let (token, pid) = (token(7), std::process::id().to_string());
        let expected = [
            "--insecure",
            flag,
            "daemon:9094",
            "--token",
            token.expose(),
            "--parent-pid",
            &pid,
            "--flwr-dir",
            "/flwr home",
        ];
        assert_eq!(
            world.said(),
            expected.map(|each| format!("[run 7] <{each}>"))
        );
        world.end().await;
    }
}

#[tokio::test]
async fn work_is_started_as_it_comes_and_no_more_than_allowed() {
    let mut plan = Plan::shell(
        "echo began; while [ ! -e \"$(dirname \"$0\")/end\" ]; do sleep 0.02; done; exit 0",
    );
    plan.apps_max = 2;
    let mut world = plan.start().await;
    world.daemon.submit([1, 2, 3]);
    world.hears(1, "began").await;
    world.hears(2, "began").await;
    assert_eq!(
        world.daemon.read(|state| state.waiting.len()),
        1,
        "two at a time"
    );
    world.daemon.submit([4]);
    std::fs::write(world.path("end"), "").unwrap();
    world.hears(3, "began").await;
    world.hears(4, "began").await;
    world.end().await;
}

#[tokio::test]
async fn what_an_app_writes_stays_on_its_stream() {
    let mut world = Plan::shell("echo out; echo err >&2; printf unfinished")
        .start()
        .await;
    world.daemon.submit([7]);
    world.hears(7, "unfinished").await;
    wait_until("stderr", || !world.complained().is_empty()).await;
    assert_eq!(world.said(), ["[run 7] out", "[run 7] unfinished"]);
    assert_eq!(world.complained(), ["[run 7] err"]);
    world.end().await;
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_reported() {
    let mut world = Plan::shell("exit 0").start().await;
    let script = "#!/no/such/interpreter\n";
    std::fs::write(world.path(Kind::ClientApp.program()), script).unwrap();
    world.daemon.submit([7, 8]);
    for run in [7, 8] {
        let how = world.daemon.exit_of(run).await;
        assert!(
            how.starts_with("it could not be started: No such file"),
            "{how}"
        );
    }
    world.end().await;
}

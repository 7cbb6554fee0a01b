//! `flwr-quic state`, beside a SuperLink that uses the state and after it.

use std::fs;

use bytes::Bytes;
use flwr_api::{FabHash, FabInfo, RunId, UnixTime, UserConfig};
use flwr_state::{DiskFabs, Fabs as _, NewRun, RunLogs as _, Runs as _, Wakeups};
use flwr_state_embedded::{Config, open};
use rustix::process::Signal;

use crate::support::{SuperLink, World, mode};

const PLACE: &str = "--database state.db --storage-dir ffs";
const PLAIN: &str = "--insecure --isolation process --database state.db --storage-dir ffs";

const BUNDLE: &[u8] = b"an app bundle";

/// A state with a run that waits, as a SuperLink has left it.
fn fill(world: &World) {
    let fab = Bytes::from_static(BUNDLE);
    let now = UnixTime::new(1e9);
    let fill = async {
        let fabs = DiskFabs::new(world.path("ffs"));
        fabs.put_fab(FabHash::of(&fab), fab.clone()).await.unwrap();
        let config = Config {
            database: world.path("state.db"),
            objects: world.path("ffs"),
            objects_quota_bytes: u64::MAX,
            free_bytes_min: 0,
        };
        let state = open(config, Wakeups::new(), now).await.unwrap();
        let run = NewRun {
            id: RunId(7),
            series: 1,
            federation: String::new(),
            fab: FabInfo {
                id: "someone/something".into(),
                version: "1.0.0".into(),
                hash: FabHash::of(&fab),
            },
            overrides: UserConfig::new(),
            options: None,
        };
        assert!(state.create_run(run, now).await.unwrap());
        for _ in 0..100 {
            let entry = "a line of some length\n".repeat(100);
            state.append_log(RunId(7), entry, now).await.unwrap();
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(fill);
}

#[test]
fn a_state_is_checked_and_backed_up_in_use_and_restored() {
    let world = World::new();
    fill(&world);
    let mut link = SuperLink::start(&world, PLAIN, &[]);
    link.wait_for("state is open");
    let said = world.good(&format!("state check {PLACE}"));
    assert!(
        said.starts_with("state.db holds 1 run, 0 nodes, 0 messages, 0 objects of 0 bytes, 1 FAB, 100 log entries\n"),
        "{said}"
    );
    assert!(said.ends_with("all of it is as it was written\n"), "{said}");

    let said = world.good(&format!("state backup backups/monday {PLACE}"));
    assert!(said.contains("wrote backups/monday with 1 run, "), "{said}");
    assert_eq!(mode(&world.path("backups/monday")), 0o700);
    assert_eq!(mode(&world.path("backups/monday/state.db")), 0o600);
    let check = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("flwr-quic state check"))
        .unwrap();
    world.good(&format!("state check{check}"));

    let ended = world.run(&format!("state backup backups/monday {PLACE}"));
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("backups/monday is not empty; name one that is"),
        "{ended:?}"
    );
    let ended = world.run(&format!("state compact {PLACE}"));
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("state.db is in use; end the SuperLink"),
        "{ended:?}"
    );
    let ended = world.run(&format!("state restore backups/monday {PLACE}"));
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("state.db is not empty"), "{ended:?}");

    link.signal(Signal::TERM);
    assert_eq!(link.end().code(), Some(0));
    let said = world.good(&format!("state compact {PLACE}"));
    assert!(
        said.contains("bytes before and take") && said.contains("removed 0 files"),
        "{said}"
    );

    let place = "--database other.db --storage-dir other";
    let said = world.good(&format!("state restore backups/monday {place}"));
    assert!(
        said.contains("superlink --database other.db --storage-dir other"),
        "{said}"
    );
    world.good(&format!("state check {place}"));
    let restored = PLAIN.replace(PLACE, place);
    let mut link = SuperLink::start(&world, &restored, &[]);
    let line = link.wait_for("state is open");
    assert!(line.contains("runs=1"), "{line}");
    link.signal(Signal::TERM);
    assert_eq!(link.end().code(), Some(0));
}

#[test]
fn what_is_wrong_is_listed_and_status_1() {
    let world = World::new();
    let ended = world.run(&format!("state check {PLACE}"));
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("there is no database at state.db"),
        "{ended:?}"
    );
    assert!(!world.path("state.db").exists());

    fill(&world);
    let bundle = FabHash::of(BUNDLE).to_string();
    fs::write(world.path("ffs").join(bundle), "another").unwrap();
    let ended = world.run(&format!("state check {PLACE}"));
    assert_eq!(ended.status, Some(1), "{ended:?}");
    let findings = ended.stdout.matches("found: app bundle ").count();
    assert_eq!(findings, 1, "{ended:?}");
    assert!(ended.stderr.contains("1 thing is wrong"), "{ended:?}");
    let ended = world.run(&format!("state backup backup {PLACE}"));
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(!world.path("backup/state.db").exists());

    let ended = world.run("state check");
    assert_eq!(ended.status, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("--database"), "{ended:?}");
}

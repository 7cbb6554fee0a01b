//! What it costs to keep state: `cargo run --release -p flwr-state-embedded --example durability
//! [FOLDER]`. Objects of 20 MiB are put into a state that lasts, beside the same bytes written to
//! the same disk one file after the other, each synced; and steps are counted with their CPU time,
//! in memory and in a database.

#![expect(clippy::print_stdout, reason = "prints what it measured")]

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use bytes::Bytes;
use flwr_api::{NodeId, ObjectId, ObjectTree, RunId, UnixTime};
use flwr_state::conformance::{new_node, new_run};
use flwr_state::{LinkState, MemoryState, Objects, Put, Wakeups};
use flwr_state_embedded::{Config, open};
use flwr_transport::Body;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

type Failure = Box<dyn std::error::Error>;
type Object = (ObjectId, Bytes);

const OBJECT_BYTES: usize = 20 << 20;
const OBJECTS: u8 = 24;
const ROUNDS: usize = 5;
const CALLS: u32 = 20_000;
const RUN: RunId = RunId(1);
const NODE: NodeId = NodeId(7);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let temporary = match std::env::args_os().nth(1) {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let objects: Vec<_> = (0..OBJECTS).map(object).collect();
    let bytes = f64::from(OBJECTS) * OBJECT_BYTES as f64;
    println!("objects: {OBJECTS} of 20 MiB; MB/s of synced files, of the state, and their ratio");
    for round in 0..ROUNDS {
        let folder = temporary.path().join(round.to_string());
        std::fs::create_dir(&folder)?;
        let begun = Instant::now();
        write_synced(&folder, &objects)?;
        let files = bytes / begun.elapsed().as_secs_f64() / 1e6;
        let begun = Instant::now();
        put(&folder, &objects).await?;
        let state = bytes / begun.elapsed().as_secs_f64() / 1e6;
        println!("  {files:.0} {state:.0} {:.2}", state / files);
        std::fs::remove_dir_all(&folder)?;
    }
    println!("microseconds of CPU a call, in memory and in a database");
    let memory = MemoryState::default();
    begin(&memory).await?;
    let folder = temporary.path().join("calls");
    std::fs::create_dir(&folder)?;
    let kept = open(config(&folder), Wakeups::new(), now()).await?;
    begin(&kept).await?;
    for _ in 0..ROUNDS {
        let beats = (beats(&memory).await?, beats(&kept).await?);
        let pulls = (pulls(&memory).await?, pulls(&kept).await?);
        println!(
            "  heartbeat {:.2} {:.2}, empty pull {:.2} {:.2}",
            beats.0, beats.1, pulls.0, pulls.1
        );
    }
    Ok(())
}

fn object(number: u8) -> Object {
    let mut bytes = format!("ArrayChunk  {OBJECT_BYTES}\0").into_bytes();
    // Every one of them is other bytes.
    let body = (0_u8..251)
        .cycle()
        .take(OBJECT_BYTES)
        .map(|byte| byte ^ number);
    bytes.extend(body);
    let bytes = Bytes::from(bytes);
    (ObjectId::of(&bytes), bytes)
}

/// One file after the other, with the sync of its bytes.
fn write_synced(folder: &Path, objects: &[Object]) -> Result<(), Failure> {
    for (id, bytes) in objects {
        let mut file = File::create(folder.join(id.to_string()))?;
        file.write_all(bytes)?;
        file.sync_data()?;
    }
    Ok(())
}

/// As a SuperNode pushes them: announced together, a few at a time.
async fn put(folder: &Path, objects: &[Object]) -> Result<(), Failure> {
    let state = open(config(folder), Wakeups::new(), now()).await?;
    begin(&state).await?;
    let trees: Vec<_> = objects
        .iter()
        .map(|(id, _)| ObjectTree::leaf(*id))
        .collect();
    state.announce(RUN, &trees).await?;
    let mut under_way = tokio::task::JoinSet::new();
    for (id, bytes) in objects.iter().cloned() {
        let state = state.clone();
        while under_way.len() >= 8 {
            done(under_way.join_next().await)?;
        }
        under_way.spawn(async move { state.put_object(id, Body::from_bytes(bytes)).await });
    }
    while let Some(put) = under_way.join_next().await {
        done(Some(put))?;
    }
    Ok(())
}

fn done(
    put: Option<Result<flwr_state::StoreResult<Put>, tokio::task::JoinError>>,
) -> Result<(), Failure> {
    match put.transpose()?.transpose()? {
        Some(Put::Stored) => Ok(()),
        other => Err(format!("an object was not stored: {other:?}").into()),
    }
}

async fn beats<S: LinkState>(state: &S) -> Result<f64, Failure> {
    let cpu = cpu_seconds();
    for _ in 0..CALLS {
        if !state.beat_node(NODE, 30.0, now()).await? {
            return Err("the node is gone".into());
        }
    }
    // What was left for later belongs to it.
    state.checkpoint(now()).await?;
    Ok((cpu_seconds() - cpu) / f64::from(CALLS) * 1e6)
}

async fn pulls<S: LinkState>(state: &S) -> Result<f64, Failure> {
    let cpu = cpu_seconds();
    for _ in 0..CALLS {
        if state.deliver(NODE, now()).await?.is_some() {
            return Err("there is no instruction".into());
        }
    }
    Ok((cpu_seconds() - cpu) / f64::from(CALLS) * 1e6)
}

async fn begin<S: LinkState>(state: &S) -> Result<(), Failure> {
    state.create_run(new_run(RUN), now()).await?;
    state.create_node(new_node(NODE), now()).await?;
    Ok(())
}

fn config(folder: &Path) -> Config {
    Config {
        database: folder.join("state.db"),
        objects: folder.join("objects"),
        objects_quota_bytes: u64::MAX,
        free_bytes_min: 0,
    }
}

fn now() -> UnixTime {
    UnixTime::new(1_760_000_000.0)
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

//! What is counted of runs, and what is looked up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flwr_api::appio::{self, AppIoService};
use flwr_api::fleet::{self, FleetService};
use flwr_api::{MessageId, NodeId, RunId};
use flwr_superlink::metrics::{
    CALLS_HELD, INSTRUCTION_AGE, INSTRUCTIONS, NODES, OBJECT_BYTES, OBJECTS, ROUND_REPLIES,
    ROUND_SECONDS, RUNS, STANDSTILL, STORE_BYTES, STORE_OBJECTS,
};
use metrics::set_default_local_recorder;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tokio::time::advance;

use crate::world::{Letter, World};

/// Figures by name and labels; of histograms, all observations.
struct Figures(BTreeMap<String, Vec<f64>>);

impl Figures {
    fn take(snapshotter: &Snapshotter) -> Self {
        let values = snapshotter.snapshot().into_vec().into_iter();
        let figures = values.map(|(key, _, _, value)| {
            let labels = key.key().labels();
            let labels: Vec<_> = labels.map(|label| label.value().to_owned()).collect();
            let name = format!("{} {}", key.key().name(), labels.join(" "));
            let figures = match value {
                DebugValue::Counter(number) => vec![number as f64],
                DebugValue::Gauge(number) => vec![number.into_inner()],
                DebugValue::Histogram(all) => all.into_iter().map(f64::from).collect(),
            };
            (name.trim_end().to_owned(), figures)
        });
        Self(figures.collect())
    }

    /// The only figure of this name and these labels.
    fn get(&self, name: &str, labels: &str) -> f64 {
        let name = format!("{name} {labels}");
        let figures = self.all(name.trim_end());
        assert_eq!(figures.len(), 1, "{name}: {figures:?}");
        figures[0]
    }

    fn all(&self, name: &str) -> &[f64] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }
}

async fn seconds(seconds: u64) {
    advance(Duration::from_secs(seconds)).await;
}

async fn fetch(world: &World, key: u8, node: NodeId) {
    let wait = Duration::ZERO;
    let call = fleet::PullMessages { node, wait };
    let pulled = world.fleet.pull_messages(&world.by_node(key), call).await;
    assert!(pulled.unwrap().is_some());
}

async fn gather(world: &World, run: RunId, instructions: &[&Letter]) -> usize {
    let call = appio::PullMessages {
        run,
        instructions: instructions.iter().map(|letter| letter.id()).collect(),
        wait: Duration::ZERO,
        linger: Duration::ZERO,
    };
    let gathered = world.appio.pull_messages(&world.by_app(), call).await;
    gathered.unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn a_round_lasts_from_its_first_message_to_the_hand_out_of_its_last_reply() {
    let recorder = DebuggingRecorder::new();
    let _recording = set_default_local_recorder(&recorder);
    let figures = || Figures::take(&recorder.snapshotter());
    let world = World::new();
    let (one, two) = (world.join(1, 3600.0).await, world.join(2, 3600.0).await);
    let run = world.running().await;
    let first = world.instruct(run, one, "first").await;
    seconds(5).await;
    let second = world.instruct(run, two, "second").await;
    seconds(10).await;
    world.reply(1, &first, "to first").await;
    assert_eq!(gather(&world, run, &[&first, &second]).await, 1);
    // Until it is confirmed it is handed out again, and counts once.
    assert_eq!(gather(&world, run, &[&first, &second]).await, 1);
    let (name, replies) = (format!("{ROUND_SECONDS} train"), "train content");
    assert_eq!(figures().get(ROUND_REPLIES, replies), 1.0);
    assert!(figures().all(&name).is_empty());
    world.reply(2, &second, "to second").await;
    // A reply that nobody has asked for yet ends no round.
    seconds(20).await;
    assert!(figures().all(&name).is_empty());
    assert_eq!(gather(&world, run, &[&first, &second]).await, 2);
    let at_end = figures();
    assert_eq!(at_end.all(&name).len(), 1);
    assert!((at_end.all(&name)[0] - 35.0).abs() < 0.1);
    assert_eq!(gather(&world, run, &[&first, &second]).await, 2);
    // The snapshot before took the observation.
    assert!(figures().all(&name).is_empty());
}

#[tokio::test(start_paused = true)]
async fn errors_end_rounds_too() {
    let recorder = DebuggingRecorder::new();
    let _recording = set_default_local_recorder(&recorder);
    let world = World::new();
    let node = world.join(1, 3600.0).await;
    let run = world.running().await;
    let letter = world.instruct(run, node, "m").await;
    let leaves = fleet::DeleteNode { node };
    world
        .fleet
        .delete_node(&world.by_node(1), leaves)
        .await
        .unwrap();
    assert_eq!(gather(&world, run, &[&letter]).await, 1);
    let figures = Figures::take(&recorder.snapshotter());
    assert_eq!(figures.get(ROUND_REPLIES, "train error"), 1.0);
    assert_eq!(figures.all(&format!("{ROUND_SECONDS} train")).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_survey_tells_what_there_is_and_for_how_long() {
    let recorder = DebuggingRecorder::new();
    let _recording = set_default_local_recorder(&recorder);
    let world = World::new();
    let figures = async || {
        world.link.survey().await.unwrap();
        Figures::take(&recorder.snapshotter())
    };
    let node = world.join(1, 3600.0).await;
    let _gone = world.join(2, 1.0).await;
    world.submit().await;
    let run = world.running().await;
    let letter = world.instruct(run, node, "m").await;
    seconds(60).await;
    let waiting = figures().await;
    assert_eq!(waiting.get(NODES, "online"), 1.0);
    assert_eq!(waiting.get(NODES, "offline"), 1.0);
    assert_eq!(waiting.get(RUNS, "pending"), 1.0);
    assert_eq!(waiting.get(RUNS, "running"), 1.0);
    assert_eq!(waiting.get(RUNS, "completed"), 0.0);
    assert_eq!(waiting.get(INSTRUCTIONS, "ready"), 1.0);
    assert!((waiting.get(INSTRUCTION_AGE, "ready") - 60.0).abs() < 0.1);
    assert_eq!(waiting.get(INSTRUCTION_AGE, "working"), 0.0);
    assert!((waiting.get(STANDSTILL, "") - 60.0).abs() < 0.1);
    assert_eq!(waiting.get(STORE_OBJECTS, ""), 1.0);
    assert_eq!(waiting.get(STORE_BYTES, ""), letter.object.len() as f64);
    fetch(&world, 1, node).await;
    let fetched = figures().await;
    assert_eq!(fetched.get(INSTRUCTIONS, "ready"), 0.0);
    assert_eq!(fetched.get(INSTRUCTIONS, "offered"), 1.0);
    assert!(fetched.get(STANDSTILL, "") < 0.1);
    world.stop(run).await;
    seconds(60).await;
    let over = figures().await;
    assert_eq!(over.get(RUNS, "stopped"), 1.0);
    assert_eq!(over.get(INSTRUCTIONS, "offered"), 0.0);
    assert_eq!(over.get(STANDSTILL, ""), 0.0);
}

#[tokio::test(start_paused = true)]
async fn objects_and_held_calls_are_counted() {
    let recorder = DebuggingRecorder::new();
    let _recording = set_default_local_recorder(&recorder);
    let figures = || Figures::take(&recorder.snapshotter());
    let world = World::new();
    let (node, run) = (world.join(1, 3600.0).await, world.running().await);
    let letter = world.instruct(run, node, "m").await;
    let bytes = letter.object.len() as f64;
    // A look takes figures back to nothing.
    let received = figures();
    assert_eq!(received.get(OBJECTS, "received test"), 1.0);
    assert_eq!(received.get(OBJECT_BYTES, "received test"), bytes);
    let call = fleet::PullObject {
        node,
        run,
        object: letter.root,
        wait: Duration::ZERO,
    };
    let pulled = world.fleet.pull_object(&world.by_node(1), call).await;
    let (_, body) = pulled.unwrap();
    body.unwrap().collect(1000).await.unwrap();
    let sent = figures();
    assert_eq!(sent.get(OBJECTS, "sent test"), 1.0);
    assert_eq!(sent.get(OBJECT_BYTES, "sent test"), bytes);

    let (appio, context) = (Arc::clone(&world.appio), world.by_app());
    let wait = Duration::from_secs(10);
    let call = appio::PullMessages {
        run,
        instructions: vec![MessageId::from(letter.root)],
        wait,
        linger: wait,
    };
    let held = async { appio.pull_messages(&context, call).await.unwrap() };
    let look = async {
        seconds(1).await;
        assert_eq!(figures().get(CALLS_HELD, "replies"), 1.0);
    };
    let (replies, ()) = tokio::join!(held, look);
    assert!(replies.is_empty());
    // Since the last look.
    assert_eq!(figures().get(CALLS_HELD, "replies"), -1.0);
}

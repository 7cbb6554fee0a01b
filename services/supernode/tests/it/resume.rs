//! Objects whose way breaks off: nothing that arrived is sent again.

use flwr_api::fleet::Request;

use crate::world::{AtWork, World, parts};

/// Larger than what is worth going on with, and than one read of a file.
const LARGE: usize = 300_000;

/// Where a way breaks off.
const BREAK: usize = 200_000;

#[tokio::test(start_paused = true)]
async fn an_upload_goes_on_where_it_broke_off() {
    let AtWork {
        world,
        run,
        asked,
        app,
        instruction,
        ..
    } = AtWork::new().await;
    let before = world.calls.moved();
    world.calls.cut("PushObject", BREAK);
    world.calls.cut("ResumePush", 1_000);
    let answer = "x".repeat(LARGE);
    let mut bytes = 0;
    for part in world.announce(&app, &instruction, &answer).await.unwrap() {
        bytes += part.1.len() as u64;
        assert!(world.push(&app, run, part).await);
    }
    world.finish(&app, "").await.unwrap();
    let reply = world.reply(run, &asked).await;
    assert_eq!(reply.message.metadata.reply_to, asked);
    assert_eq!(world.calls.moved() - before, bytes);
    let resumed = offsets(&world);
    assert_eq!(resumed, [BREAK, BREAK + 1_000]);
}

#[tokio::test(start_paused = true)]
async fn a_download_goes_on_where_it_broke_off() {
    let world = World::new().await;
    let (node, _running) = world.join().await;
    let run = world.running().await;
    world.calls.cut("PullObject", BREAK);
    world.calls.cut("ResumePull", 1_000);
    let content = "x".repeat(LARGE);
    let asked = world.instruct(run, node, "a", &content).await;
    world.pull(&world.launch(run).await).await;
    let bytes: usize = parts("a", &content).iter().map(|part| part.1.len()).sum();
    assert_eq!(world.calls.moved(), bytes as u64);
    assert_eq!(offsets(&world), [BREAK, BREAK + 1_000]);
    drop(asked);
}

#[tokio::test(start_paused = true)]
async fn a_superlink_that_cannot_go_on_is_sent_and_asked_for_the_whole() {
    let world = World::new().await;
    let (node, _running) = world.join().await;
    let run = world.running().await;
    world.calls.forget_own_calls();
    world.calls.cut("PullObject", BREAK);
    let content = "x".repeat(LARGE);
    let asked = world.instruct(run, node, "a", &content).await;
    let app = world.launch(run).await;
    world.calls.cut("PushObject", BREAK);
    world.play(&app, &"y".repeat(LARGE), "").await;
    world.reply(run, &asked).await;
    let bytes = |name: &str, content: &str| {
        let parts = parts(name, content);
        parts.iter().map(|part| part.1.len()).sum::<usize>()
    };
    let answer = "y".repeat(LARGE);
    let once = bytes("a", &content) + bytes(&answer, &answer);
    assert_eq!(world.calls.moved(), (once + 2 * BREAK) as u64);
}

/// Where objects went on.
fn offsets(world: &World) -> Vec<usize> {
    let calls = world.calls.all();
    let offset = |call: &Request| match call {
        Request::ResumePull(call) => Some(usize::try_from(call.offset).unwrap()),
        Request::ResumePush(call) => Some(usize::try_from(call.offset).unwrap()),
        _ => None,
    };
    calls.iter().filter_map(|(_, call)| offset(call)).collect()
}

//! ClientApps and their launchers at the SuperNode.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flwr_api::appio::{AppContext, AppIoService, AppStanding, ReportAppExit, WatchApp};
use flwr_api::{Delivery, Payload, Reason, Scalar, UserConfig};
use flwr_supernode::Config;
use flwr_transport::Context;
use tokio::time::Instant;

use crate::world::{AtWork, World};

fn error_code(reply: &Delivery) -> i64 {
    match &reply.message.payload {
        Payload::Error(error) => error.code,
        Payload::Content(_) => panic!("the reply is no error"),
    }
}

async fn exit(world: &World, app: &Context) {
    let how = "killed by signal 9".to_owned();
    world
        .apps
        .report_app_exit(app, ReportAppExit { how })
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn test_112_an_instruction_becomes_a_reply_and_the_app_finds_its_configuration() {
    let node_config = UserConfig::from([("partition-id".into(), Scalar::Sint64(3))]);
    let world = World::with(Config {
        node_config: node_config.clone(),
        ..Config::default()
    })
    .await;
    let (node, _running) = world.join().await;
    let run = world.running().await;
    let asked = world.instruct(run, node, "a", "model").await;
    let app = world.launch(run).await;
    let inputs = world.inputs(&app).await.unwrap();
    assert_eq!(inputs.run.id, run);
    let AppContext::Fresh {
        node: id,
        node_config: given,
        run_config,
    } = inputs.context
    else {
        panic!("an app that never ran has left nothing behind");
    };
    assert_eq!((id, given), (node, node_config));
    let expected = [
        ("deep.text", Scalar::String("x".into())),
        ("rate", Scalar::Sint64(2)),
    ];
    assert_eq!(
        run_config,
        expected.map(|(key, value)| (key.to_owned(), value)).into()
    );
    world.play(&app, "answer", "state").await;
    let reply = world.reply(run, &asked).await;
    assert_eq!(reply.message.metadata.reply_to, asked);
    assert!(matches!(reply.message.payload, Payload::Content(_)));
}

#[tokio::test(start_paused = true)]
async fn test_109_111_113_apps_of_a_run_come_one_after_the_other_and_share_their_context() {
    let world = World::with(Config {
        apps_max: 4,
        ..Config::default()
    })
    .await;
    let (node, _running) = world.join().await;
    let run = world.running().await;
    let first = world.instruct(run, node, "a", "model").await;
    let second = world.instruct(run, node, "b", "model").await;
    let app = world.launch(run).await;
    assert!(world.claim(run).await.is_none());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.launchable().await, []);
    world.play(&app, "one", "left by the first").await;
    assert_eq!(
        world.reply(run, &first).await.message.metadata.reply_to,
        first
    );

    let app = world.launch(run).await;
    let inputs = world.inputs(&app).await.unwrap();
    let kept = Bytes::from_static(b"left by the first");
    assert_eq!(inputs.context, AppContext::Kept(kept));
    assert_eq!(world.pull(&app).await.message.metadata.id, second);
    world.play(&app, "two", "left by the second").await;
    assert_eq!(
        world.reply(run, &second).await.message.metadata.reply_to,
        second
    );
}

#[tokio::test(start_paused = true)]
async fn test_110_calls_without_a_valid_token_are_refused() {
    let AtWork {
        world, instruction, ..
    } = AtWork::new().await;
    let stranger = world.as_app(&flwr_api::Token::presented("00"));
    for context in [world.context(), stranger] {
        let refused = [
            world.inputs(&context).await.unwrap_err(),
            world
                .announce(&context, &instruction, "x")
                .await
                .unwrap_err(),
            world.finish(&context, "x").await.unwrap_err(),
        ];
        for status in refused {
            assert_eq!(Reason::of(&status), Some(Reason::TokenInvalid));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn test_121_an_app_that_dies_is_answered_for_with_the_code_of_how_far_it_got() {
    let world = World::new().await;
    let (node, _running) = world.join().await;
    let run = world.running().await;
    // Never asked for its message, had its message, had announced its reply.
    for (name, code) in [("a", 1), ("b", 2), ("c", 4)] {
        let asked = world.instruct(run, node, name, "model").await;
        let app = world.launch(run).await;
        world.inputs(&app).await.unwrap();
        if code > 1 {
            let instruction = world.pull(&app).await;
            if code > 2 {
                world.announce(&app, &instruction, "lost").await.unwrap();
            }
        }
        let died = Instant::now();
        exit(&world, &app).await;
        assert_eq!(error_code(&world.reply(run, &asked).await), code);
        assert!(died.elapsed() < Duration::from_secs(1));
        assert!(world.inputs(&app).await.is_err());
    }
    let asked = world.instruct(run, node, "d", "model").await;
    world.play(&world.launch(run).await, "alive", "").await;
    assert_eq!(
        world.reply(run, &asked).await.message.metadata.reply_to,
        asked
    );
}

#[tokio::test(start_paused = true)]
async fn an_app_that_dies_after_its_whole_reply_has_answered() {
    let AtWork {
        world,
        run,
        asked,
        app,
        instruction,
        ..
    } = AtWork::new().await;
    for part in world.announce(&app, &instruction, "whole").await.unwrap() {
        assert!(world.push(&app, run, part).await);
    }
    exit(&world, &app).await;
    let reply = world.reply(run, &asked).await;
    assert!(matches!(reply.message.payload, Payload::Content(_)));
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_never_comes_is_tried_three_times() {
    let world = World::new().await;
    let (node, _running) = world.join().await;
    let run = world.running().await;
    let asked = world.instruct(run, node, "a", "model").await;
    let begun = Instant::now();
    for _ in 0..3 {
        world.launch(run).await;
    }
    assert_eq!(error_code(&world.reply(run, &asked).await), 1);
    assert!((180..190).contains(&begun.elapsed().as_secs()));
    assert_eq!(world.launchable().await, []);
}

#[tokio::test(start_paused = true)]
async fn test_117_a_stopped_run_ends_its_app_and_the_next_run_is_served() {
    let AtWork {
        world,
        node,
        run,
        app,
        ..
    } = AtWork::new().await;
    let (apps, context) = (Arc::clone(&world.apps), app.clone());
    let wait = Duration::from_secs(3600);
    let watched = tokio::spawn(async move { apps.watch_app(&context, WatchApp { wait }).await });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!watched.is_finished());
    world.stop(run).await;
    let stopped = Instant::now();
    assert_eq!(watched.await.unwrap().unwrap(), AppStanding::Unwanted);
    assert!(stopped.elapsed() < Duration::from_secs(10));
    assert!(world.inputs(&app).await.is_err());

    let run = world.running().await;
    let asked = world.instruct(run, node, "b", "model").await;
    world.play(&world.launch(run).await, "answer", "").await;
    assert_eq!(
        world.reply(run, &asked).await.message.metadata.reply_to,
        asked
    );
}

#[tokio::test(start_paused = true)]
async fn a_reply_to_something_else_is_refused() {
    let AtWork {
        world,
        run,
        asked,
        app,
        instruction,
        ..
    } = AtWork::new().await;
    let mut other = instruction.clone();
    other.message.metadata.id = flwr_api::MessageId::new("another");
    assert!(world.announce(&app, &other, "x").await.is_err());
    let mut other = instruction.clone();
    other.message.metadata.dst = flwr_api::NodeId(99);
    assert!(world.announce(&app, &other, "x").await.is_err());
    world.play(&app, "right", "").await;
    assert_eq!(
        world.reply(run, &asked).await.message.metadata.reply_to,
        asked
    );
}

#[tokio::test(start_paused = true)]
async fn a_repeated_last_call_is_told_yes_and_changes_nothing() {
    let world = World::new().await;
    let (node, _running) = world.join().await;
    let run = world.running().await;
    let first = world.instruct(run, node, "a", "model").await;
    let app = world.launch(run).await;
    world.play(&app, "one", "kept").await;
    world.reply(run, &first).await;
    world.finish(&app, "late").await.unwrap();
    let wait = Duration::from_secs(60);
    let done = world.apps.watch_app(&app, WatchApp { wait }).await;
    assert_eq!(done.unwrap(), AppStanding::Done);
    world.instruct(run, node, "b", "model").await;
    let inputs = world.inputs(&world.launch(run).await).await.unwrap();
    assert_eq!(
        inputs.context,
        AppContext::Kept(Bytes::from_static(b"kept"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_app_whose_connection_is_gone_is_gone_unless_it_was_silent_for_long() {
    let AtWork {
        world,
        node,
        run,
        asked,
        app,
        ..
    } = AtWork::new().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    app.gone.cancel();
    let hung_up = Instant::now();
    assert_eq!(error_code(&world.reply(run, &asked).await), 2);
    assert!(hung_up.elapsed() < Duration::from_secs(5));

    // One that calls again over another connection goes on.
    let asked = world.instruct(run, node, "b", "model").await;
    let app = world.launch(run).await;
    world.pull(&app).await;
    app.gone.cancel();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut again = app.clone();
    again.gone = tokio_util::sync::CancellationToken::new();
    world.play(&again, "still there", "").await;
    let reply = world.reply(run, &asked).await;
    assert!(matches!(reply.message.payload, Payload::Content(_)));

    // A stock app that computes for an hour has closed its connection.
    let asked = world.instruct(run, node, "c", "model").await;
    let app = world.launch(run).await;
    let instruction = world.pull(&app).await;
    for minutes in 1..=60 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        world.beat(run).await;
        if minutes == 30 {
            app.gone.cancel();
        }
    }
    let mut again = app.clone();
    again.gone = tokio_util::sync::CancellationToken::new();
    for part in world.announce(&again, &instruction, "late").await.unwrap() {
        assert!(world.push(&again, run, part).await);
    }
    let reply = world.reply(run, &asked).await;
    assert!(matches!(reply.message.payload, Payload::Content(_)));
}

//! Logs of runs (section 3.11).

use flwr_api::{Phase, RunId, RunStatus, UnixTime};

use super::fixtures::{RUN, at, new_run, shift, stopped};
use crate::link::{LOG_BYTES_MAX, LOG_SLICE_BYTES_MAX, LinkState, LogSlice};

/// 133: a reader that goes on where it was misses and repeats nothing.
pub async fn entries_come_after_a_time<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    for run in [RUN, RunId(2)] {
        state.create_run(new_run(run), at(0.0)).await.unwrap();
    }
    assert_eq!(read(&state, UnixTime::default()).await, LogSlice::default());
    for (text, seconds) in [("one\n", 1.0), ("two\n", 2.0), ("trois é\n", 3.0)] {
        append(&state, text, seconds).await;
    }
    let other = state.append_log(RunId(2), "other".into(), at(2.5)).await;
    assert!(other.unwrap());
    for (after, text, latest) in [
        (0.0, "one\ntwo\ntrois é\n", Some(3.0)),
        (0.999, "one\ntwo\ntrois é\n", Some(3.0)),
        (1.0, "two\ntrois é\n", Some(3.0)),
        (2.5, "trois é\n", Some(3.0)),
        (3.0, "", None),
        (1e12, "", None),
    ] {
        let expected = LogSlice {
            text: text.into(),
            latest: latest.map(at),
        };
        assert_eq!(read(&state, at(after)).await, expected, "after {after}");
    }
}

/// 169: readers resume one microsecond after the last they have seen.
pub async fn entries_have_distinct_times<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    state.create_run(new_run(RUN), at(0.0)).await.unwrap();
    let mut times = Vec::new();
    for index in 0..200 {
        // Equal times, and a clock that is set back.
        let seconds = if index % 3 == 2 { -50.0 } else { 0.0 };
        append(&state, &format!("{index}\n"), seconds).await;
        times.push(read(&state, UnixTime::default()).await.latest.unwrap());
    }
    for (index, pair) in times.windows(2).enumerate() {
        let gap = pair[1].seconds() - pair[0].seconds();
        assert!((2e-6..4e-6).contains(&gap), "{gap} s after entry {index}");
        let next = read(&state, pair[0].plus(1e-6)).await.text;
        assert!(next.starts_with(&format!("{}\n", index + 1)), "{next}");
    }
    append(&state, "later", 5.0).await;
    let latest = read(&state, at(4.0)).await.latest;
    assert_eq!(
        latest,
        Some(at(5.0)),
        "the clock itself where that is later"
    );
}

/// 100: also before and after the run.
pub async fn logs_are_kept_in_every_status<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    let unknown = state.append_log(RUN, "lost".into(), at(0.0)).await;
    assert!(!unknown.unwrap());
    state.create_run(new_run(RUN), at(0.0)).await.unwrap();
    let statuses = [
        RunStatus::of(Phase::Starting),
        RunStatus::of(Phase::Running),
        stopped(),
    ];
    append(&state, "p", 0.0).await;
    for (status, text) in statuses.into_iter().zip(["s", "r", "f"]) {
        shift(&state, RUN, status, 0.0).await;
        append(&state, text, 0.0).await;
    }
    assert_eq!(read(&state, UnixTime::default()).await.text, "psrf");
}

/// Neither a log nor one read of it grows without bound.
pub async fn old_entries_go_when_a_log_is_full<S: LinkState>(new: impl AsyncFn() -> S) {
    const ENTRY: usize = 1 << 20;
    let state = new().await;
    state.create_run(new_run(RUN), at(0.0)).await.unwrap();
    let entries = LOG_BYTES_MAX / ENTRY + 5;
    for index in 0..entries {
        let text = format!("{}{index}", "x".repeat(ENTRY - 4));
        append(
            &state,
            &text,
            1.0 + u32::try_from(index).map_or(0.0, f64::from),
        )
        .await;
    }
    let (mut kept, mut cursor) = (String::new(), UnixTime::default());
    loop {
        let slice = read(&state, cursor).await;
        assert!(slice.text.len() <= LOG_SLICE_BYTES_MAX);
        kept.push_str(&slice.text);
        let Some(latest) = slice.latest else { break };
        assert!(latest > cursor, "{latest:?} comes again");
        cursor = latest;
    }
    assert!(kept.len() <= LOG_BYTES_MAX, "{} bytes", kept.len());
    assert!(
        kept.len() > LOG_BYTES_MAX - 3 * ENTRY,
        "{} bytes",
        kept.len()
    );
    assert!(
        kept.ends_with(&format!("{}", entries - 1)),
        "the newest stays"
    );

    let huge = format!("{}é", "é".repeat(LOG_BYTES_MAX / 2));
    append(&state, &huge, 1e4).await;
    let slice = read(&state, cursor).await;
    assert!(slice.text.len() <= LOG_BYTES_MAX);
    assert!(!slice.text.is_empty() && huge.ends_with(&slice.text));
}

async fn append(state: &impl LinkState, text: &str, seconds: f64) {
    let known = state.append_log(RUN, text.to_owned(), at(seconds)).await;
    assert!(known.unwrap());
}

async fn read(state: &impl LinkState, after: UnixTime) -> LogSlice {
    state.log_after(RUN, after).await.unwrap()
}

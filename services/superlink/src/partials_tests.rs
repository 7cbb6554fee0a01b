use futures_util::FutureExt as _;

use super::*;

const SMALL: Bounds = Bounds {
    node_bytes_max: 100,
    bytes_max: 250,
    node_count_max: 3,
    count_max: 100,
    object_bytes_min: 10,
    time_max: Duration::from_secs(600),
};

fn key(node: u64, run: u64, name: &str) -> Key {
    Key {
        node: NodeId(node),
        run: RunId(run),
        object: ObjectId::of(name.as_bytes()),
    }
}

/// So many bytes of a hundred.
fn beginning(bytes: usize) -> Option<Beginning> {
    Some(Beginning::here(100, vec![7; bytes].into()))
}

/// A push that breaks off after so many bytes.
fn broken_off(partials: &Arc<Partials>, key: Key, bytes: usize) {
    partials.begin(key).leave(beginning(bytes));
}

async fn received(partials: &Partials, key: Key) -> u64 {
    let [received] = partials.received([key]).await[..] else {
        panic!("one answer for one question")
    };
    received
}

fn is_over(writing: &Writing) -> bool {
    writing.over().now_or_never().is_some()
}

#[tokio::test(start_paused = true)]
async fn a_push_goes_on_where_it_broke_off_and_leaves_nothing() {
    let partials = Arc::new(Partials::with(SMALL));
    let a = key(7, 1, "a");
    broken_off(&partials, a, 10);
    assert_eq!(received(&partials, a).await, 10);
    for other in [key(8, 1, "a"), key(7, 2, "a"), key(7, 1, "b")] {
        assert_eq!(received(&partials, other).await, 0);
        assert!(partials.resume(other, 0).await.is_none());
    }
    for offset in [9, 11] {
        assert!(partials.resume(a, offset).await.is_none());
    }
    let (writing, begun) = partials.resume(a, 10).await.unwrap();
    assert_eq!(begun.len(), 10);
    assert!(!is_over(&writing));
    drop(writing);
    assert_eq!(received(&partials, a).await, 0);
    assert!(partials.runs().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_writer_is_over_once_its_node_asks_and_what_it_leaves_is_waited_for() {
    let partials = Arc::new(Partials::with(SMALL));
    let a = key(7, 1, "a");
    let writing = partials.begin(a);
    assert!(!is_over(&writing));
    let mut asked = Box::pin(received(&partials, a));
    assert_eq!(futures_util::poll!(&mut asked), std::task::Poll::Pending);
    assert!(is_over(&writing));
    writing.leave(beginning(10));
    assert_eq!(asked.await, 10);
    // One that goes on at once ends the one before as well.
    let (writing, _) = partials.resume(a, 10).await.unwrap();
    let mut next = Box::pin(partials.resume(a, 20));
    assert!(futures_util::poll!(&mut next).is_pending());
    assert!(is_over(&writing));
    writing.leave(beginning(20));
    let (next, begun) = next.await.unwrap();
    assert_eq!(begun.len(), 20);
    // And nothing is left of one that was.
    drop(next);
    assert_eq!(received(&partials, a).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_push_that_begins_again_is_not_disturbed_by_the_one_before() {
    let partials = Arc::new(Partials::with(SMALL));
    let a = key(7, 1, "a");
    let (former, latter) = (partials.begin(a), partials.begin(a));
    assert!(!is_over(&former), "it may have arrived in a moment");
    former.leave(beginning(50));
    latter.leave(beginning(10));
    assert_eq!(received(&partials, a).await, 10);
    let (former, latter) = (partials.begin(a), partials.begin(a));
    drop(former);
    latter.leave(beginning(10));
    assert_eq!(received(&partials, a).await, 10);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
    let partials = Arc::new(Partials::with(SMALL));
    assert!(partials.takes(10) && partials.takes(100));
    assert!(!partials.takes(9) && !partials.takes(101));
    broken_off(&partials, key(1, 1, "few"), 9);
    assert_eq!(received(&partials, key(1, 1, "few")).await, 0);
    for node in 1..=3 {
        for name in ["a", "b", "c"] {
            tokio::time::advance(Duration::from_secs(1)).await;
            broken_off(&partials, key(node, 1, name), 50);
        }
    }
    let kept = |node| ["a", "b", "c"].map(|name| key(node, 1, name));
    for (node, expected) in [(1, [0, 0, 50]), (2, [0, 50, 50]), (3, [0, 50, 50])] {
        assert_eq!(partials.received(kept(node)).await, expected);
    }
    partials.forget_run(RunId(1));
    assert!(partials.runs().is_empty());
}

#[tokio::test(start_paused = true)]
async fn there_are_not_too_many_of_them() {
    let bounds = Bounds {
        node_count_max: 2,
        count_max: 3,
        ..SMALL
    };
    let partials = Arc::new(Partials::with(bounds));
    let keys = [(1, "a"), (1, "b"), (1, "c"), (2, "d"), (3, "e")];
    let keys = keys.map(|(node, name)| key(node, 1, name));
    for key in keys {
        tokio::time::advance(Duration::from_secs(1)).await;
        broken_off(&partials, key, 20);
    }
    assert_eq!(partials.received(keys).await, [0, 0, 20, 20, 20]);
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_is_not_written_any_more() {
    let partials = Arc::new(Partials::with(SMALL));
    let pushes = [key(1, 1, "a"), key(1, 2, "a"), key(2, 2, "a")].map(|key| partials.begin(key));
    partials.forget_run(RunId(1));
    assert_eq!(
        [0, 1, 2].map(|at| is_over(&pushes[at])),
        [true, false, false]
    );
    partials.forget_node(NodeId(1));
    assert_eq!(
        [0, 1, 2].map(|at| is_over(&pushes[at])),
        [true, true, false]
    );
    for push in pushes {
        push.leave(beginning(20));
    }
    assert_eq!(received(&partials, key(1, 1, "a")).await, 0);
    assert_eq!(received(&partials, key(2, 2, "a")).await, 20);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_comes_back_for_is_forgotten() {
    let partials = Arc::new(Partials::with(SMALL));
    broken_off(&partials, key(1, 1, "a"), 50);
    let under_way = partials.begin(key(1, 1, "b"));
    tokio::time::advance(Duration::from_secs(599)).await;
    partials.sweep();
    assert_eq!(received(&partials, key(1, 1, "a")).await, 50);
    tokio::time::advance(Duration::from_secs(1)).await;
    partials.sweep();
    assert_eq!(received(&partials, key(1, 1, "a")).await, 0);
    under_way.leave(beginning(50));
    assert_eq!(received(&partials, key(1, 1, "b")).await, 50);
    let under_way = partials.begin(key(1, 1, "c"));
    partials.forget_left();
    under_way.leave(beginning(50));
    let names = ["b", "c"].map(|name| key(1, 1, name));
    assert_eq!(partials.received(names).await, [0, 50]);
}

use futures_util::StreamExt as _;

use super::*;

const SMALL: Bounds = Bounds {
    node_bytes_max: 100,
    bytes_max: 250,
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

/// A push that breaks off after so many bytes.
fn broken_off(partials: &Arc<Partials>, key: Key, bytes: usize) {
    let writing = partials.begin(key, 100);
    assert_eq!(writing.append(&vec![7; bytes]), Ok(()));
}

fn received(partials: &Partials, key: Key) -> u64 {
    let [received] = partials.received([key])[..] else {
        panic!("one answer for one question")
    };
    received
}

fn body(bytes: &'static [u8]) -> Body {
    Body::from_bytes(Bytes::from_static(bytes))
}

#[tokio::test(start_paused = true)]
async fn a_push_goes_on_where_it_broke_off_and_leaves_nothing() {
    let partials = Arc::new(Partials::with(SMALL, MemoryBudget::unbounded()));
    let a = key(7, 1, "a");
    let pieces = [
        Ok(Bytes::from_static(b"0123456789")),
        Err(BodyError::Interrupted),
    ];
    let pieces = Body::from_stream(Some(12), futures_util::stream::iter(pieces));
    let broken = partials.begin(a, 12).fill(pieces).await;
    assert_eq!(broken, Err(BodyError::Interrupted));
    assert_eq!(received(&partials, a), 10);
    for other in [key(8, 1, "a"), key(7, 2, "a"), key(7, 1, "b")] {
        assert_eq!(received(&partials, other), 0);
        assert!(partials.resume(other, 0).is_none());
    }
    assert!(partials.resume(a, 11).is_none());
    // What the node has not been told of, or not understood, it sends again.
    let whole = partials.resume(a, 9).unwrap().fill(body(b"9ab")).await;
    assert_eq!(whole.unwrap(), "0123456789ab");
    assert_eq!(received(&partials, a), 0);
    assert!(partials.runs().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_waits_ends_once_its_node_asks() {
    let partials = Arc::new(Partials::with(SMALL, MemoryBudget::unbounded()));
    let a = key(7, 1, "a");
    let first = futures_util::stream::iter([Ok(Bytes::from_static(b"0123456789"))]);
    let hanging = Body::from_stream(Some(12), first.chain(futures_util::stream::pending()));
    let hanging = tokio::spawn(partials.begin(a, 12).fill(hanging));
    tokio::task::yield_now().await;
    assert_eq!(received(&partials, a), 10);
    let next = partials.resume(a, 10).unwrap();
    assert_eq!(hanging.await.unwrap(), Err(BodyError::Interrupted));
    // The former one leaves nothing behind that would keep the latter from its end.
    partials.sweep();
    assert_eq!(next.fill(body(b"ab")).await.unwrap(), "0123456789ab");
}

#[tokio::test(start_paused = true)]
async fn a_writer_is_over_once_its_node_asks() {
    let partials = Arc::new(Partials::with(SMALL, MemoryBudget::unbounded()));
    let a = key(7, 1, "a");
    let hanging = partials.begin(a, 100);
    hanging.append(b"0123456789").unwrap();
    assert_eq!(received(&partials, a), 10);
    assert_eq!(hanging.append(b"x"), Err(BodyError::Interrupted));
    let next = partials.resume(a, 10).unwrap();
    drop(hanging);
    next.append(b"ab").unwrap();
    assert_eq!(next.fill(body(b"c")).await.unwrap(), "0123456789abc");
    // One that begins again does not get in the way of the one before, nor the other way round.
    let (former, latter) = (partials.begin(a, 100), partials.begin(a, 100));
    former.append(b"former").unwrap();
    latter.append(b"the latter").unwrap();
    assert_eq!(former.fill(body(b"")).await.unwrap(), "former");
    drop(latter);
    assert_eq!(received(&partials, a), 10);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
    let partials = Arc::new(Partials::with(SMALL, MemoryBudget::unbounded()));
    assert!(partials.takes(10) && partials.takes(100));
    assert!(!partials.takes(9) && !partials.takes(101));
    broken_off(&partials, key(1, 1, "few"), 9);
    assert_eq!(received(&partials, key(1, 1, "few")), 0);
    let too_long = partials.begin(key(1, 1, "long"), 100);
    too_long.append(&[0; 60]).unwrap();
    assert_eq!(
        too_long.append(&[0; 41]),
        Err(BodyError::TooLong { max: 100 })
    );
    drop(too_long);
    partials.forget_node(NodeId(1));
    for node in 1..=3 {
        for name in ["a", "b", "c"] {
            tokio::time::advance(Duration::from_secs(1)).await;
            broken_off(&partials, key(node, 1, name), 50);
        }
    }
    let kept = |node| ["a", "b", "c"].map(|name| received(&partials, key(node, 1, name)));
    assert_eq!([1, 2, 3].map(kept), [[0, 0, 50], [0, 50, 50], [0, 50, 50]]);
    partials.forget_run(RunId(1));
    assert!(partials.runs().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_comes_back_for_is_forgotten() {
    let partials = Arc::new(Partials::with(SMALL, MemoryBudget::unbounded()));
    broken_off(&partials, key(1, 1, "a"), 50);
    let under_way = partials.begin(key(1, 1, "b"), 100);
    under_way.append(&[0; 50]).unwrap();
    tokio::time::advance(Duration::from_secs(599)).await;
    partials.sweep();
    assert_eq!(received(&partials, key(1, 1, "a")), 50);
    tokio::time::advance(Duration::from_secs(1)).await;
    partials.sweep();
    assert_eq!(received(&partials, key(1, 1, "a")), 0);
    assert_eq!(under_way.fill(body(b"")).await.unwrap().len(), 50);
}

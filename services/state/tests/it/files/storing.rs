//! What puts and gets do when nothing is in their way, and what bad bodies leave behind: nothing.

use bytes::Bytes;
use flwr_api::ObjectId;
use flwr_api::object::Malformed;
use flwr_state::files::{Arrival, Config, PutFile};
use flwr_transport::{Body, BodyError};
use futures_util::{StreamExt, stream};

use super::{
    LARGE, PLENTY, assert_clean, assert_reads, interrupted, names, object, open, path, pieces, put,
    store, wait_until,
};

#[tokio::test]
async fn objects_come_back_as_they_were_put() {
    let (folder, files) = open(PLENTY);
    let sizes = [15, 100, 512 << 10, (512 << 10) + 1, 1 << 20, LARGE];
    let ways = [
        (usize::MAX, true),
        (64 << 10, true),
        (1000, true),
        (4096, false),
    ];
    for (fill, (piece_bytes, announced)) in (0..).zip(ways) {
        for bytes in sizes {
            let (id, bytes) = object(fill, bytes);
            let body = pieces(&bytes, piece_bytes, announced);
            assert!(!files.has(id));
            assert_eq!(files.put(id, body).await.unwrap(), PutFile::Stored);
            assert_eq!(files.len(id), Some(bytes.len() as u64));
            let body = files.get(id).await.unwrap().unwrap();
            assert_eq!(body.len(), Some(bytes.len() as u64));
            assert_reads(&files, &(id, bytes)).await;
        }
    }
    let totals = files.totals();
    assert_eq!(totals.objects, sizes.len() * ways.len());
    assert_eq!(
        totals.bytes,
        (sizes.iter().sum::<usize>() * ways.len()) as u64
    );
    assert_clean(folder.path(), &files);
}

#[tokio::test]
async fn durable_objects_are_stored_alike() {
    let (folder, files) = open(Config {
        durable: true,
        ..PLENTY
    });
    for fill in 0..3 {
        let object = object(fill, 1000);
        store(&files, &object).await;
        assert_reads(&files, &object).await;
    }
    assert_clean(folder.path(), &files);
}

#[tokio::test]
async fn an_unknown_object_is_nothing() {
    let (_folder, files) = open(PLENTY);
    let (id, _) = object(1, 100);
    assert!(files.get(id).await.unwrap().is_none());
    assert_eq!((files.has(id), files.len(id)), (false, None));
    assert!(!files.remove(id).await.unwrap());
}

#[tokio::test]
async fn missing_objects_are_named_once_in_order() {
    let (_folder, files) = open(PLENTY);
    let objects = [1, 2, 3].map(|fill| object(fill, 100));
    let [first, second, third] = [0, 1, 2].map(|at| objects[at].0);
    store(&files, &objects[1]).await;
    assert_eq!(
        files.missing(&[third, second, first, third]),
        [third, first]
    );
}

#[tokio::test]
async fn bad_bodies_leave_nothing() {
    let (folder, files) = open(PLENTY);
    let (id, good) = object(1, LARGE);
    let (other, _) = object(2, 100);
    let headless = Bytes::from_static(b"no object");
    let short = BodyError::TooShort {
        announced: LARGE as u64 + 1,
        received: LARGE as u64,
    };
    let long = BodyError::TooLong { max: 5 };
    let announced = |len| Body::from_stream(Some(len), stream::iter([Ok(good.clone())]));
    let cases = [
        (other, pieces(&good, 5000, true), PutFile::WrongHash),
        (id, pieces(&good.slice(1..), 5000, true), PutFile::WrongHash),
        (id, Body::from_bytes(Bytes::new()), PutFile::WrongHash),
        (
            ObjectId::of(b""),
            Body::from_bytes(Bytes::new()),
            PutFile::Malformed(Malformed::Unterminated),
        ),
        (
            ObjectId::of(&headless),
            Body::from_bytes(headless),
            PutFile::Malformed(Malformed::Unterminated),
        ),
        (
            id,
            interrupted(&good, None),
            PutFile::Interrupted(BodyError::Interrupted),
        ),
        (
            id,
            interrupted(&good.slice(..10), Some(LARGE as u64)),
            PutFile::Interrupted(BodyError::Interrupted),
        ),
        (id, announced(LARGE as u64 + 1), PutFile::Interrupted(short)),
        (id, announced(5), PutFile::Interrupted(long)),
    ];
    for (id, body, expected) in cases {
        assert_eq!(files.put(id, body).await.unwrap(), expected);
        assert!(!files.has(id), "{expected:?}");
        assert_clean(folder.path(), &files);
    }
    assert_eq!(names(&folder.path().join("objects")), [""; 0]);
    store(&files, &(id, good)).await;
}

#[tokio::test]
async fn an_object_goes_on_where_its_body_broke_off() {
    let (folder, files) = open(PLENTY);
    let (id, bytes) = object(1, 3 * LARGE);
    let mut begun = None;
    for (from, to) in [(0, 0), (0, 10), (10, LARGE), (LARGE, 2 * LARGE)] {
        let rest = bytes.slice(from..to);
        let body = interrupted(&rest, Some((bytes.len() - from) as u64));
        let arrival = files.receive(id, begun, body).await.unwrap();
        let Arrival::BrokeOff(partial, BodyError::Interrupted) = arrival else {
            panic!("{arrival:?}");
        };
        assert_eq!(partial.len(), to as u64);
        assert!(!files.has(id));
        begun = Some(partial);
    }
    assert_eq!(files.totals().reserved_bytes, bytes.len() as u64);
    let rest = pieces(&bytes.slice(2 * LARGE..), 70_000, true);
    let arrival = files.receive(id, begun, rest).await.unwrap();
    assert!(matches!(arrival, Arrival::Over(PutFile::Stored)));
    assert_reads(&files, &(id, bytes)).await;
    assert_clean(folder.path(), &files);
}

#[tokio::test]
async fn a_beginning_that_does_not_fit_leaves_nothing() {
    let (folder, files) = open(PLENTY);
    let (wrong, right) = (object(1, LARGE), object(2, LARGE));
    let begin = async |id| {
        let body = interrupted(&wrong.1.slice(..1000), Some(LARGE as u64));
        match files.receive(id, None, body).await.unwrap() {
            Arrival::BrokeOff(partial, _) => Some(partial),
            Arrival::Over(put) => panic!("{put:?}"),
        }
    };
    let begun = begin(right.0).await;
    let rest = Body::from_bytes(right.1.slice(1000..));
    let arrival = files.receive(right.0, begun, rest).await.unwrap();
    assert!(matches!(arrival, Arrival::Over(PutFile::WrongHash)));
    assert_clean(folder.path(), &files);
    // What has come of another object is of no use.
    let begun = begin(wrong.0).await;
    let whole = Body::from_bytes(right.1.clone());
    let arrival = files.receive(right.0, begun, whole).await.unwrap();
    assert!(matches!(arrival, Arrival::Over(PutFile::Stored)));
    let given_up = begin(wrong.0).await;
    let tmp = folder.path().join("tmp");
    assert_eq!(names(&tmp).len(), 1);
    drop(given_up);
    wait_until(|| names(&tmp).is_empty() && files.totals().reserved_bytes == 0).await;
}

#[tokio::test]
async fn what_is_here_already_is_not_read_again() {
    let (_folder, files) = open(PLENTY);
    let object = object(1, 100);
    store(&files, &object).await;
    let untouched = stream::poll_fn(|_| panic!("the body is read"));
    let body = Body::from_stream(Some(100), untouched);
    assert_eq!(files.put(object.0, body).await.unwrap(), PutFile::Present);
}

#[tokio::test]
async fn one_object_can_be_put_by_many_at_once() {
    let (folder, files) = open(PLENTY);
    let object = object(1, LARGE);
    let mut puts = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (files, object) = (files.clone(), object.clone());
        puts.spawn(async move { put(&files, &object).await.unwrap() });
    }
    let puts = puts.join_all().await;
    let stored = puts.iter().filter(|put| **put == PutFile::Stored).count();
    let present = puts.iter().filter(|put| **put == PutFile::Present).count();
    assert_eq!((stored, present), (1, 7));
    assert_eq!(files.totals().bytes, LARGE as u64);
    assert_clean(folder.path(), &files);
    assert_reads(&files, &object).await;
}

#[tokio::test]
async fn a_put_that_is_dropped_half_way_leaves_nothing() {
    let (folder, files) = open(PLENTY);
    let (id, bytes) = object(1, 2 * LARGE);
    let half = stream::iter([Ok(bytes.slice(..LARGE))]).chain(stream::pending());
    let body = Body::from_stream(Some(bytes.len() as u64), half);
    let put = tokio::spawn({
        let files = files.clone();
        async move { files.put(id, body).await }
    });
    let tmp = folder.path().join("tmp");
    wait_until(|| names(&tmp).len() == 1).await;
    assert_eq!(files.totals().reserved_bytes, bytes.len() as u64);
    put.abort();
    assert!(put.await.unwrap_err().is_cancelled());
    wait_until(|| names(&tmp).is_empty() && files.totals().reserved_bytes == 0).await;
    assert!(!files.has(id) && !path(folder.path(), id).exists());
    store(&files, &(id, bytes)).await;
}

#[tokio::test]
async fn a_get_that_is_dropped_half_way_pins_nothing() {
    let (_folder, files) = open(PLENTY);
    let object = object(1, LARGE);
    store(&files, &object).await;
    let mut body = files.get(object.0).await.unwrap().unwrap();
    assert!(body.next().await.unwrap().is_ok());
    assert_eq!(files.totals().pinned_bytes, LARGE as u64);
    assert!(!files.remove(object.0).await.unwrap());
    drop(body);
    assert_eq!(files.totals().pinned_bytes, 0);
    assert!(files.remove(object.0).await.unwrap());
}

//! The byte streams that travel with a call.

use std::fmt;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt};

/// Bytes of a call or a reply: one piece that is already here, or a stream of pieces.
///
/// Pieces are handed on as [`Bytes`] and are never copied by passing through.
pub struct Body {
    len: Option<u64>,
    inner: Inner,
}

enum Inner {
    Whole(Option<Bytes>),
    Stream(Chunks),
}

/// Why a body ended before its last byte.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The sender stopped or its connection broke.
    #[error("the sender stopped before the end of the body")]
    Interrupted,
    /// More bytes came than were announced or allowed.
    #[error("the body is longer than {max} bytes")]
    TooLong {
        /// The bound that was passed, in bytes.
        max: u64,
    },
    /// Fewer bytes came than were announced.
    #[error("the body ended at {received} of {announced} bytes")]
    TooShort {
        /// Bytes announced.
        announced: u64,
        /// Bytes that came.
        received: u64,
    },
}

impl Body {
    /// A body that is wholly here.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self {
            len: Some(bytes.len() as u64),
            inner: Inner::Whole(Some(bytes)),
        }
    }

    /// A body that arrives in pieces; `len` is its length in bytes where it is known beforehand.
    pub fn from_stream<S>(len: Option<u64>, chunks: S) -> Self
    where
        S: futures_util::Stream<Item = Result<Bytes, BodyError>> + Send + 'static,
    {
        Self {
            len,
            inner: Inner::Stream(chunks.boxed()),
        }
    }

    /// The announced length in bytes.
    #[must_use]
    pub fn len(&self) -> Option<u64> {
        self.len
    }

    /// Whether the body is announced to have no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == Some(0)
    }

    /// The next piece, or nothing at the end. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        match &mut self.inner {
            Inner::Whole(bytes) => bytes.take().filter(|b| !b.is_empty()).map(Ok),
            Inner::Stream(chunks) => chunks.next().await,
        }
    }

    /// The pieces as a stream.
    #[must_use]
    pub fn into_stream(self) -> BoxStream<'static, Result<Bytes, BodyError>> {
        match self.inner {
            Inner::Whole(bytes) => stream::iter(bytes.filter(|b| !b.is_empty()).map(Ok)).boxed(),
            Inner::Stream(chunks) => chunks,
        }
    }

    /// The body without its first `bytes`, which are read and dropped where they are not here yet.
    /// Nothing is left of a shorter one.
    #[must_use]
    pub fn skip(self, bytes: u64) -> Self {
        let len = self.len.map(|len| len.saturating_sub(bytes));
        let inner = match self.inner {
            _ if bytes == 0 => self.inner,
            Inner::Whole(whole) => Inner::Whole(whole.map(|whole| without(whole, bytes).0)),
            Inner::Stream(chunks) => {
                let mut left = bytes;
                let rest = chunks.filter_map(move |chunk| {
                    let chunk = chunk.map(|chunk| {
                        let (rest, still_left) = without(chunk, left);
                        left = still_left;
                        rest
                    });
                    let is_wanted = !chunk.as_ref().is_ok_and(Bytes::is_empty);
                    std::future::ready(is_wanted.then_some(chunk))
                });
                Inner::Stream(rest.boxed())
            }
        };
        Self { len, inner }
    }

    /// The same body held to its announcement: a piece that leads past the announced length comes
    /// as [`BodyError::TooLong`], an end before it as [`BodyError::TooShort`], and either is the
    /// last thing that comes. Transports send bodies through this.
    #[must_use]
    pub fn checked(self) -> Self {
        match self {
            Self {
                len: Some(announced),
                inner: Inner::Stream(chunks),
            } => {
                let checked = stream::unfold((Some(chunks), 0), move |(chunks, received)| {
                    check_next(chunks, received, announced)
                });
                Self::from_stream(Some(announced), checked)
            }
            whole_or_unannounced => whole_or_unannounced,
        }
    }

    /// The same body, of whose pieces `see` is told the length as they pass: at once for one that is
    /// wholly here.
    #[must_use]
    pub fn inspect(self, mut see: impl FnMut(usize) + Send + 'static) -> Self {
        let inner = match self.inner {
            Inner::Whole(whole) => {
                see(whole.as_ref().map_or(0, Bytes::len));
                Inner::Whole(whole)
            }
            Inner::Stream(chunks) => {
                let seen = chunks.inspect(move |chunk| see(chunk.as_ref().map_or(0, Bytes::len)));
                Inner::Stream(seen.boxed())
            }
        };
        Self {
            len: self.len,
            inner,
        }
    }

    /// The whole body in one piece, without a copy where it came in one.
    ///
    /// Dropping the future loses what was read.
    ///
    /// # Errors
    /// [`BodyError::TooLong`] beyond `max` bytes, [`BodyError::TooShort`] if fewer bytes came than
    /// were announced, [`BodyError::Interrupted`] if the sender stopped.
    pub async fn collect(self, max: u64) -> Result<Bytes, BodyError> {
        if self.len.is_some_and(|len| len > max) {
            return Err(BodyError::TooLong { max });
        }
        let announced = self.len;
        let mut gathered = Gathered::new(announced);
        let mut body = self.checked();
        gathered.fill(&mut body, max).await?;
        finish(gathered.into_bytes(), announced)
    }

    /// Whether all of it is here.
    #[must_use]
    pub fn is_here(&self) -> bool {
        matches!(self.inner, Inner::Whole(_))
    }

    /// The same body, which ends with [`BodyError::Interrupted`] as soon as `over` is.
    #[must_use]
    pub fn until(self, over: impl Future<Output = ()> + Send + 'static) -> Self {
        let len = self.len;
        let state = Some((self.into_stream(), Box::pin(over)));
        let pieces = stream::unfold(state, |state| async move {
            let (mut pieces, mut over) = state?;
            tokio::select! {
                biased;
                () = &mut over => Some((Err(BodyError::Interrupted), None)),
                piece = pieces.next() => Some((piece?, Some((pieces, over)))),
            }
        });
        Self::from_stream(len, pieces)
    }
}

/// The pieces of a body, joined as they come: without a copy as long as there is one.
#[derive(Debug, Default)]
pub struct Gathered {
    announced: Option<u64>,
    first: Bytes,
    joined: BytesMut,
}

impl Gathered {
    /// Nothing yet of so many bytes, where that is known.
    #[must_use]
    pub fn new(announced: Option<u64>) -> Self {
        Self {
            announced,
            ..Self::default()
        }
    }

    /// How many bytes are announced in all.
    #[must_use]
    pub fn announced(&self) -> Option<u64> {
        self.announced
    }

    /// Bytes that have come.
    #[must_use]
    pub fn len(&self) -> u64 {
        (self.first.len() + self.joined.len()) as u64
    }

    /// Whether none have.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a body to its end. What came stays here if that fails.
    ///
    /// # Errors
    /// The body broke off, or more than `max` bytes are here with it.
    pub async fn fill(&mut self, body: &mut Body, max: u64) -> Result<(), BodyError> {
        while let Some(piece) = body.next().await.transpose()? {
            if self.len() + piece.len() as u64 > max {
                return Err(BodyError::TooLong { max });
            }
            self.push(piece);
        }
        Ok(())
    }

    /// Takes the next piece.
    pub fn push(&mut self, piece: Bytes) {
        if self.is_empty() {
            self.first = piece;
            return;
        }
        if self.joined.is_empty() {
            let first = std::mem::take(&mut self.first);
            self.joined = BytesMut::with_capacity(capacity_hint(self.announced, first.len()));
            self.joined.extend_from_slice(&first);
        }
        self.joined.extend_from_slice(&piece);
    }

    /// All that came.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self.joined.is_empty() {
            true => self.first,
            false => self.joined.freeze(),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::from_bytes(bytes)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

type Chunks = BoxStream<'static, Result<Bytes, BodyError>>;

async fn check_next(
    chunks: Option<Chunks>,
    received: u64,
    announced: u64,
) -> Option<(Result<Bytes, BodyError>, (Option<Chunks>, u64))> {
    let mut chunks = chunks?;
    match chunks.next().await {
        Some(Ok(chunk)) => {
            let received = received + chunk.len() as u64;
            if received > announced {
                let too_long = BodyError::TooLong { max: announced };
                return Some((Err(too_long), (None, received)));
            }
            Some((Ok(chunk), (Some(chunks), received)))
        }
        Some(Err(failure)) => Some((Err(failure), (None, received))),
        None if received < announced => {
            let too_short = BodyError::TooShort {
                announced,
                received,
            };
            Some((Err(too_short), (None, received)))
        }
        None => None,
    }
}

/// A piece without its first bytes, and how many are still to go.
fn without(mut piece: Bytes, bytes: u64) -> (Bytes, u64) {
    let some = usize::try_from(bytes).unwrap_or(usize::MAX);
    let some = some.min(piece.len());
    let rest = piece.split_off(some);
    (rest, bytes - some as u64)
}

fn finish(bytes: Bytes, announced: Option<u64>) -> Result<Bytes, BodyError> {
    match announced {
        Some(announced) if bytes.len() as u64 != announced => {
            let received = bytes.len() as u64;
            if received > announced {
                Err(BodyError::TooLong { max: announced })
            } else {
                Err(BodyError::TooShort {
                    announced,
                    received,
                })
            }
        }
        _ => Ok(bytes),
    }
}

/// A peer's announcement is believed up to 64 MiB; beyond that the buffer grows as bytes arrive.
fn capacity_hint(announced: Option<u64>, at_least: usize) -> usize {
    const BELIEVED_MAX: u64 = 64 << 20;
    let announced = announced.unwrap_or(0).min(BELIEVED_MAX);
    usize::try_from(announced).unwrap_or(0).max(at_least)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERRUPTED: Result<&[u8], BodyError> = Err(BodyError::Interrupted);

    fn body(len: Option<u64>, pieces: &[Result<&'static [u8], BodyError>]) -> Body {
        let pieces = pieces.to_vec();
        let pieces = pieces
            .into_iter()
            .map(|piece| piece.map(Bytes::from_static));
        Body::from_stream(len, stream::iter(pieces))
    }

    async fn check_collect(
        len: Option<u64>,
        pieces: &[Result<&'static [u8], BodyError>],
        max: u64,
        expected: Result<&[u8], BodyError>,
    ) {
        let collected = body(len, pieces).collect(max).await;
        let collected = collected.as_deref().map_err(Clone::clone);
        assert_eq!(collected, expected, "{len:?} {pieces:?} {max}");
    }

    fn too_short(announced: u64, received: u64) -> BodyError {
        BodyError::TooShort {
            announced,
            received,
        }
    }

    #[tokio::test]
    async fn collect_joins_the_pieces() {
        for len in [None, Some(6)] {
            check_collect(len, &[Ok(b"abcdef")], 6, Ok(b"abcdef")).await;
            check_collect(len, &[Ok(b"abc"), Ok(b"def")], 6, Ok(b"abcdef")).await;
            let three: [_; 4] = [Ok(b"a".as_slice()), Ok(b"bcd"), Ok(b""), Ok(b"ef")];
            check_collect(len, &three, 100, Ok(b"abcdef")).await;
        }
        check_collect(None, &[], 0, Ok(b"")).await;
        check_collect(Some(0), &[], 0, Ok(b"")).await;
    }

    #[tokio::test]
    async fn collect_stops_beyond_its_bound() {
        let too_long = Err(BodyError::TooLong { max: 5 });
        check_collect(Some(6), &[INTERRUPTED], 5, too_long.clone()).await;
        check_collect(None, &[Ok(b"abcdef")], 5, too_long.clone()).await;
        check_collect(None, &[Ok(b"abcdef"), Ok(b"")], 5, too_long.clone()).await;
        // The endless rest is not waited for.
        let endless = stream::repeat(Ok(Bytes::from_static(b"abc")));
        let collected = Body::from_stream(None, endless).collect(5).await;
        assert_eq!(collected.as_deref(), too_long.as_ref().copied());
    }

    #[tokio::test]
    async fn what_came_stays_where_a_body_breaks_off() {
        let mut gathered = Gathered::new(Some(6));
        let pieces = [Ok(b"ab".as_slice()), Ok(b"c"), INTERRUPTED];
        let broke = gathered.fill(&mut body(Some(6), &pieces), 6).await;
        assert_eq!(broke, Err(BodyError::Interrupted));
        assert_eq!(gathered.len(), 3);
        let rest = body(Some(3), &[Ok(b"def")]);
        assert_eq!(gathered.fill(&mut rest.checked(), 6).await, Ok(()));
        assert_eq!(gathered.into_bytes(), "abcdef");
    }

    #[tokio::test]
    async fn a_body_ends_when_somebody_says_so() {
        let (say, said) = tokio::sync::oneshot::channel::<()>();
        let over = async move {
            let _ = said.await;
        };
        let pieces = stream::iter([Ok(Bytes::from_static(b"ab"))]).chain(stream::pending());
        let mut ended = Body::from_stream(Some(6), pieces).until(over);
        assert_eq!(ended.len(), Some(6));
        assert_eq!(ended.next().await, Some(Ok(Bytes::from_static(b"ab"))));
        drop(say);
        assert_eq!(ended.next().await, Some(Err(BodyError::Interrupted)));
        assert_eq!(ended.next().await, None);
        // Nothing is lost where nobody does.
        let whole = Body::from_bytes(Bytes::from_static(b"abc"));
        let whole = whole.until(std::future::pending()).collect(3).await;
        assert_eq!(whole.unwrap(), "abc");
    }

    #[tokio::test]
    async fn collect_holds_a_body_to_its_announcement() {
        check_collect(Some(3), &[Ok(b"ab")], 9, Err(too_short(3, 2))).await;
        check_collect(Some(3), &[Ok(b"a"), Ok(b"b")], 9, Err(too_short(3, 2))).await;
        check_collect(Some(3), &[], 9, Err(too_short(3, 0))).await;
        let too_long = Err(BodyError::TooLong { max: 3 });
        check_collect(Some(3), &[Ok(b"abcd")], 9, too_long.clone()).await;
        check_collect(Some(3), &[Ok(b"abc"), Ok(b"d")], 9, too_long).await;
    }

    #[tokio::test]
    async fn collect_passes_a_failure_on() {
        let interrupted = Err(BodyError::Interrupted);
        check_collect(None, &[INTERRUPTED], 9, interrupted.clone()).await;
        check_collect(Some(9), &[Ok(b"a"), INTERRUPTED], 9, interrupted.clone()).await;
        check_collect(None, &[Ok(b"a"), Ok(b"b"), INTERRUPTED], 9, interrupted).await;
    }

    #[tokio::test]
    async fn collect_of_one_piece_copies_nothing() {
        let bytes = Bytes::from(vec![7; 100]);
        for body in [
            Body::from_bytes(bytes.clone()),
            Body::from_stream(None, stream::iter([Ok(bytes.clone())])),
        ] {
            let collected = body.collect(100).await.unwrap();
            assert_eq!(collected.as_ptr(), bytes.as_ptr());
        }
    }

    #[tokio::test]
    async fn an_announced_giant_is_not_allocated() {
        let pieces = [Ok(b"a".as_slice()), Ok(b"b")];
        let expected = Err(too_short(1 << 60, 2));
        check_collect(Some(1 << 60), &pieces, u64::MAX, expected).await;
    }

    #[tokio::test]
    async fn checked_ends_at_the_first_wrong_byte() {
        type Pieces<'a> = &'a [Result<&'static [u8], BodyError>];
        let cases: [(Option<u64>, Pieces<'_>, Pieces<'_>); 5] = [
            (Some(2), &[Ok(b"a"), Ok(b"b")], &[Ok(b"a"), Ok(b"b")]),
            (
                Some(2),
                &[Ok(b"a"), Ok(b"bc"), Ok(b"d")],
                &[Ok(b"a"), Err(BodyError::TooLong { max: 2 })],
            ),
            (Some(2), &[Ok(b"a")], &[Ok(b"a"), Err(too_short(2, 1))]),
            (
                Some(2),
                &[Ok(b"a"), INTERRUPTED, Ok(b"b")],
                &[Ok(b"a"), INTERRUPTED],
            ),
            (None, &[Ok(b"a"), Ok(b"b")], &[Ok(b"a"), Ok(b"b")]),
        ];
        for (len, pieces, expected) in cases {
            let checked = body(len, pieces).checked();
            assert_eq!(checked.len(), len);
            let came: Vec<_> = checked.into_stream().collect().await;
            let came: Vec<_> = came
                .iter()
                .map(|p| p.as_deref().map_err(Clone::clone))
                .collect();
            assert_eq!(came, expected);
        }
    }

    #[tokio::test]
    async fn a_body_can_begin_later() {
        let pieces: [_; 3] = [Ok(b"ab".as_slice()), Ok(b"cd"), Ok(b"ef")];
        for bytes in 0..=7 {
            let rest = &b"abcdef"[bytes.min(6)..];
            let whole = Body::from_bytes(Bytes::from_static(b"abcdef"));
            for body in [whole, body(Some(6), &pieces)] {
                let body = body.skip(bytes as u64);
                assert_eq!(body.len(), Some(rest.len() as u64), "{bytes}");
                assert_eq!(body.collect(6).await.as_deref(), Ok(rest), "{bytes}");
            }
        }
        let broken = body(Some(6), &[Ok(b"ab"), INTERRUPTED]).skip(4);
        assert_eq!(broken.collect(6).await, Err(BodyError::Interrupted));
    }

    #[tokio::test]
    async fn a_whole_body_comes_once() {
        let mut body = Body::from(Bytes::from_static(b"abc"));
        assert_eq!((body.len(), body.is_empty()), (Some(3), false));
        assert_eq!(body.next().await, Some(Ok(Bytes::from_static(b"abc"))));
        assert_eq!(body.next().await, None);
        let mut empty = Body::from_bytes(Bytes::new());
        assert!(empty.is_empty());
        assert_eq!(empty.next().await, None);
        assert!(!Body::from_stream(None, stream::empty()).is_empty());
    }
}

//! Reading a response: a message, or a refusal and its words.

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Body as _;
use hyper::body::Incoming;
use tonic::metadata::MetadataValue;

use super::lines::Lease;
use crate::client::asking::{Peek, Received};
use crate::client::errors::{Failed, REASON_HEADER, unusable};
use crate::client::reply::{self, Bounds, Pieces};
use crate::reading::append;

pub(super) const PROTOBUF: HeaderValue = HeaderValue::from_static("application/protobuf");
/// Words beyond this are not read.
const WORDS_BYTES_MAX: usize = 4 << 10;

/// Reads an answer. An object's bytes may still be arriving when it returns.
pub(super) async fn read(
    response: Response<Incoming>,
    peek: Option<Peek>,
    bounds: Bounds,
    lease: Lease,
) -> Result<Received, Failed> {
    let (head, body) = response.into_parts();
    let announced = body.size_hint().exact();
    let mut pieces = Pieces::of_http1(body, bounds.idle, lease);
    if head.status != StatusCode::OK {
        return Err(refusal(&head, &words(&head, &mut pieces).await).into());
    }
    if head.headers.get(header::CONTENT_TYPE) != Some(&PROTOBUF) {
        return Err(unusable("it is not Flower's: check the address").into());
    }
    let bytes_max = bounds.message_bytes_max;
    match announced.map(usize::try_from) {
        Some(Ok(length)) if length <= bytes_max => {
            reply::message(Bytes::new(), length, peek, pieces).await
        }
        Some(_) => Err(unusable(format_args!("{bytes_max} bytes are allowed")).into()),
        // The end of a connection is no end of a message.
        None if !is_chunked(&head.headers) => Err(unusable("it has no length").into()),
        None => {
            let mut message = Vec::new();
            while let Some(piece) = pieces.next().await? {
                append(&mut message, &piece, bytes_max).map_err(|why| unusable(why.message()))?;
            }
            Ok(Received {
                head: message.into(),
                tail: None,
            })
        }
    }
}

fn is_chunked(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
}

/// The words of a refusal, if they are for programs and people: proxies send pages.
async fn words(head: &Parts, pieces: &mut Pieces) -> String {
    let content_type = head.headers.get(header::CONTENT_TYPE);
    if !content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/plain")) {
        return String::new();
    }
    let mut words = Vec::new();
    // What came before a connection broke is better than nothing.
    while let Ok(Some(piece)) = pieces.next().await {
        let room = WORDS_BYTES_MAX - words.len();
        words.extend_from_slice(&piece[..piece.len().min(room)]);
        if words.len() == WORDS_BYTES_MAX {
            break;
        }
    }
    String::from_utf8_lossy(&words).into_owned()
}

/// What a status of HTTP means: the inverse of what our server does (`f1/rest`). Stock servers send 500 for all that goes
/// wrong in a call.
fn refusal(head: &Parts, words: &str) -> tonic::Status {
    use tonic::Code;
    let told = head.headers.get(REASON_HEADER);
    let told = told.and_then(|value| MetadataValue::try_from(value.as_bytes()).ok());
    let code = match head.status {
        // Some codes share a status, and the reason knows.
        _ if told.is_some() => Code::Unknown,
        StatusCode::BAD_REQUEST => Code::InvalidArgument,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        // What servers say that do not know the path.
        StatusCode::NOT_FOUND if words == "Not Found" => Code::Unimplemented,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => Code::Unimplemented,
        StatusCode::PAYLOAD_TOO_LARGE => Code::ResourceExhausted,
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
        _ => Code::Internal,
    };
    let text = if words.is_empty() || code == Code::Unimplemented {
        format!("the server answered with HTTP status {}", head.status)
    } else {
        words.to_owned()
    };
    let mut status = tonic::Status::new(code, text);
    if let Some(told) = told {
        status.metadata_mut().insert(REASON_HEADER, told);
    }
    status
}

//! The words of refusals, read: the inverse of the dialect's `refuse` (protocol sections 2.0.3, 2.0.4, 2.4, 5.1.2).

use std::borrow::Cow;

use flwr_api::Reason;
use flwr_transport::{Code, Status};
use tonic::metadata::MetadataValue;

use crate::client::{REASON_HEADER, from_grpc};

/// Adds the reason's number to its words, for callers of ours.
pub(crate) fn telling(reason: Reason, mut status: tonic::Status) -> tonic::Status {
    let number = MetadataValue::from(reason as u16);
    status.metadata_mut().insert(REASON_HEADER, number);
    status
}

/// What a refusal means. A stock server's is known by its words.
pub(super) fn refused(status: &tonic::Status) -> Status {
    let text = status.message();
    let upstream = text.strip_prefix("Exception calling application: ");
    let told = told(status);
    let Some((reason, message)) = recognized(told, upstream.unwrap_or(text), upstream.is_some())
    else {
        return Status::new(from_grpc(status.code()), text.to_owned());
    };
    let refusal = reason.refuse(message.into_owned());
    match status.code() {
        // An exception of a stock server has no code of its own.
        tonic::Code::Unknown => refusal,
        code => Status {
            code: from_grpc(code),
            ..refusal
        },
    }
}

fn told(status: &tonic::Status) -> Option<Reason> {
    let number = status.metadata().get(REASON_HEADER)?.to_str().ok()?;
    let reason = number.parse().ok()?;
    Reason::of(&Status::new(Code::Internal, Cow::Borrowed("")).with_reason(reason))
}

/// The reason, and the text without the words that stand for it.
fn recognized(told: Option<Reason>, text: &str, upstream: bool) -> Option<(Reason, Cow<'_, str>)> {
    if upstream && text.parse::<u64>().is_ok() {
        return Some((Reason::RunUnknown, format!("run {text} is unknown").into()));
    }
    let whole = WORDS.iter().find(|(_, words)| text == *words);
    let whole = whole.map(|(reason, _)| (*reason, text));
    let begun = || {
        BEGINNINGS.iter().find_map(|(reason, words)| {
            let rest = text.strip_prefix(words)?;
            Some((*reason, rest))
        })
    };
    let by_words = whole.or_else(begun).or_else(|| object_malformed(text));
    let by_words = by_words.or_else(|| stock_only(text).map(|reason| (reason, text)));
    let (reason, text) = by_words.or_else(|| told.map(|reason| (reason, text)))?;
    Some((told.unwrap_or(reason), text.into()))
}

/// Words with a name in them, which are no use without the rest.
fn stock_only(text: &str) -> Option<Reason> {
    if text.starts_with("Run ID ") && text.ends_with(" is already finished") {
        Some(Reason::RunAlreadyFinished)
    } else if text.starts_with("Found no FAB with hash: ") {
        Some(Reason::FabUnknown)
    } else if text.starts_with("Failed to start run ") {
        Some(Reason::RunNotStartable)
    } else {
        None
    }
}

/// `Object with ID '<hash>' has an unexpected structure. <rule>`
fn object_malformed(text: &str) -> Option<(Reason, &str)> {
    let rest = text.strip_prefix("Object with ID '")?;
    let (_, why) = rest.split_once("' has an unexpected structure. ")?;
    Some((Reason::ObjectMalformed, why))
}

const WORDS: [(Reason, &str); 11] = [
    (Reason::RunPending, "Run is pending."),
    (Reason::RunStarting, "Run is starting."),
    (Reason::RunFinished, "Run is finished."),
    (Reason::RunStopped, "Run is finished. Stopped by user."),
    (Reason::RunUnknown, "Run ID not found"),
    (Reason::TokenInvalid, "Invalid token."),
    (Reason::NodeMismatch, "Invalid node ID"),
    (Reason::KeyInUse, "Public key already in use"),
    (Reason::NotSuperLinkNode, "Unexpected node ID."),
    (
        Reason::NoArtifactProvider,
        "ControlServicer initialized without artifact provider",
    ),
    (
        Reason::NoUserAuth,
        "ControlServicer initialized without user authentication",
    ),
];

const BEGINNINGS: [(Reason, &str); 2] = [
    (Reason::RunNotStartable, "Failed to start run: "),
    (Reason::MessageMalformed, "Malformed PushMessages: "),
];

#[cfg(test)]
mod tests {
    use flwr_api::{ObjectId, RunId};

    use super::*;
    use crate::dialect::Subject;

    #[test]
    fn every_reason_comes_back_with_its_code_and_message() {
        let subjects = [
            Subject::None,
            Subject::Object(ObjectId::of(b"")),
            Subject::Run(RunId(7)),
        ];
        let numbers = 0..=u16::MAX;
        let all: Vec<Reason> = numbers
            .filter_map(|number| Reason::of(&Status::new(Code::Internal, "").with_reason(number)))
            .collect();
        assert!(all.len() >= 17);
        for reason in all {
            for subject in subjects {
                let sent = reason.refuse("the details");
                let came = refused(&crate::f1::refuse(&sent, subject));
                assert_eq!(
                    (came.code, came.reason),
                    (sent.code, sent.reason),
                    "{sent:?}"
                );
                // Sent on by a relay, it says the same again.
                let again = crate::f1::refuse(&came, subject);
                let once = crate::f1::refuse(&sent, subject);
                assert_eq!(again.message(), once.message());
            }
        }
    }

    #[test]
    fn a_stock_servers_words_are_known() {
        use tonic::Code as Grpc;
        let cases = [
            (
                Grpc::PermissionDenied,
                "Run is finished.",
                Some(Reason::RunFinished),
                Code::PermissionDenied,
            ),
            (
                Grpc::Unauthenticated,
                "Invalid node ID",
                Some(Reason::NodeMismatch),
                Code::Unauthenticated,
            ),
            (
                Grpc::Unknown,
                "Exception calling application: 1234",
                Some(Reason::RunUnknown),
                Code::NotFound,
            ),
            (
                Grpc::Unknown,
                "Exception calling application: Found no FAB with hash: 00",
                Some(Reason::FabUnknown),
                Code::NotFound,
            ),
            (
                Grpc::Unknown,
                "Exception calling application: Failed to start run 12",
                Some(Reason::RunNotStartable),
                Code::FailedPrecondition,
            ),
            (
                Grpc::Unknown,
                "Exception calling application: boom",
                None,
                Code::Internal,
            ),
            (
                Grpc::Unauthenticated,
                "Invalid signature",
                None,
                Code::Unauthenticated,
            ),
            (Grpc::Unavailable, "", None, Code::Unavailable),
        ];
        for (code, text, reason, expected) in cases {
            let status = refused(&tonic::Status::new(code, text));
            assert_eq!(
                (Reason::of(&status), status.code),
                (reason, expected),
                "{text}"
            );
        }
    }
}

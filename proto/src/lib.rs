//! Protobuf messages of the Flower releases this project speaks.
//!
//! One module per range of releases with equal field tables: [`v1_22`]. Next to
//! them [`health`], the standard gRPC health messages. The `.proto` files are in
//! this crate's `flwr/` and `grpc/` folders and also list the services, as
//! documentation: no stubs are generated, method paths such as
//! `/flwr.proto.Fleet/PullMessages` are served by the dialects.
//!
//! # Opaque fields
//!
//! A sub-message that is relayed and never read is an `Option<Bytes>` under the
//! field number of the sub-message. On the wire a nested message and a byte
//! string are the same, so peers see no difference. What came in goes out bit for
//! bit, decoding from [`bytes::Bytes`] takes a slice and no copy (which keeps the
//! whole received buffer alive), and an empty sub-message stays different from an
//! absent one.
//!
//! | Field | Type on the wire |
//! |---|---|
//! | [`Message::content`](v1_22::Message::content) | [`RecordDict`](v1_22::RecordDict) |
//! | [`PullAppInputsResponse::context`](v1_22::PullAppInputsResponse::context) | [`Context`](v1_22::Context) |
//! | [`PushAppOutputsRequest::context`](v1_22::PushAppOutputsRequest::context) | [`Context`](v1_22::Context) |
//! | [`StartRunRequest::federation_options`](v1_22::StartRunRequest::federation_options) | [`ConfigRecord`](v1_22::ConfigRecord) |
//! | [`GetFederationOptionsResponse::federation_options`](v1_22::GetFederationOptionsResponse::federation_options) | [`ConfigRecord`](v1_22::ConfigRecord) |
//!
//! The types on the right exist for those who need to look inside: decode the
//! bytes as that type. An opaque field is not checked on arrival; garbage in it
//! is found by whoever decodes it.
//!
//! # Encoding
//!
//! All `bytes` are [`bytes::Bytes`]. Maps are `BTreeMap`s, so that equal messages
//! have equal bytes, as message ids (hashes over encoded messages) require.
//! `Debug` shows tokens, objects, array data, FABs and opaque fields by their length
//! only; configuration values, metrics and logs are shown as they are.

mod redact;

/// Messages of Flower 1.22 (protobuf package `flwr.proto`).
#[expect(
    missing_docs,
    reason = "generated; fields whose name says it all have no comment in the .proto files"
)]
#[expect(clippy::use_self, reason = "generated; an object tree contains trees")]
pub mod v1_22 {
    include!(concat!(env!("OUT_DIR"), "/flwr.proto.rs"));
}

/// Messages of the gRPC health service (protobuf package `grpc.health.v1`).
#[expect(
    missing_docs,
    reason = "generated; fields whose name says it all have no comment in the .proto files"
)]
pub mod health {
    include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
}

/// Messages between launchers and daemons of this project (protobuf package `flwr_quic`).
#[expect(
    missing_docs,
    reason = "generated; fields whose name says it all have no comment in the .proto files"
)]
pub mod launcher {
    include!(concat!(env!("OUT_DIR"), "/flwr_quic.rs"));
}

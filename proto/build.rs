//! Compiles the .proto files of this crate to Rust, without an external protoc.

use std::error::Error;

/// One file per topic of Flower 1.22, and the gRPC health service.
const PROTOS: [&str; 9] = [
    "flwr/v1_22/adapter.proto",
    "flwr/v1_22/appio.proto",
    "flwr/v1_22/control.proto",
    "flwr/v1_22/fleet.proto",
    "flwr/v1_22/message.proto",
    "flwr/v1_22/node.proto",
    "flwr/v1_22/object.proto",
    "flwr/v1_22/record.proto",
    "flwr/v1_22/run.proto",
];
const HEALTH: &str = "grpc/health.proto";
/// What launchers and daemons of this project say beside Flower.
const LAUNCHER: &str = "flwr_quic/launcher.proto";

/// Messages with secrets or large contents; `src/redact.rs` writes their `Debug`.
const REDACTED: [&str; 19] = [
    ".flwr.proto.Array",
    ".flwr.proto.Fab",
    ".flwr.proto.GetAuthTokensRequest",
    ".flwr.proto.GetAuthTokensResponse",
    ".flwr.proto.GetFederationOptionsResponse",
    ".flwr.proto.GetLoginDetailsResponse",
    ".flwr.proto.Message",
    ".flwr.proto.MessageContainer",
    ".flwr.proto.PullAppInputsRequest",
    ".flwr.proto.PullAppInputsResponse",
    ".flwr.proto.PullAppMessagesRequest",
    ".flwr.proto.PullObjectResponse",
    ".flwr.proto.PushAppMessagesRequest",
    ".flwr.proto.PushAppOutputsRequest",
    ".flwr.proto.PushObjectRequest",
    ".flwr.proto.RequestTokenResponse",
    ".flwr.proto.StartRunRequest",
    ".flwr_quic.ReportAppExitRequest",
    ".flwr_quic.WatchAppRequest",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    for file in PROTOS.iter().chain([&HEALTH, &LAUNCHER]) {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(PROTOS.iter().chain([&HEALTH, &LAUNCHER]), ["."])?;
    prost_build::Config::new()
        .bytes(["."])
        .btree_map(["."])
        .skip_debug(REDACTED)
        .compile_fds(descriptors)?;
    Ok(())
}

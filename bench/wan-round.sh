#!/usr/bin/env bash
# Builds the release binaries, makes sure of a Python environment with stock Flower 1.22, and measures rounds of whole
# federations over the emulated link. Arguments go to bench/wan_round.py. Needs root; ends with status 77 without.
#
# FLWR_VENV=DIR uses this Python environment instead of making one.

set -euo pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/common.sh"

check_prerequisites build
cargo build --release -p flwr-quic -p flwr-bench-emu --manifest-path "$REPOSITORY/Cargo.toml"
ensure_venv
export FLWR_TELEMETRY_ENABLED=0 no_grpc_proxy=127.0.0.1,localhost,10.77.0.1
TARGET=${CARGO_TARGET_DIR:-$REPOSITORY/target}/release
exec "$VENV/bin/python" "$REPOSITORY/bench/wan_round.py" \
    --subject "$TARGET/flwr-quic" --emulator "$TARGET/flwr-emu" "$@"

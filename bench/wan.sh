#!/usr/bin/env bash
# Builds the link emulator and the transfers, then measures QUIC beside gRPC and plain TLS over the
# emulated link. Arguments go to bench/wan.py: see `bash bench/wan.sh --help`.
#
# FLWR_EMU_BIN=PATH and FLWR_LINK_BIN=PATH use these binaries instead of building them. Needs root,
# TUN and iproute2, or ends with status 77.

set -euo pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/common.sh"

if [[ (-z ${FLWR_EMU_BIN:-} || -z ${FLWR_LINK_BIN:-}) && " $* " != *" --help "* ]]; then
    check_prerequisites build
    cargo build --release -p flwr-bench-emu -p flwr-bench-link --manifest-path "$REPOSITORY/Cargo.toml"
    RELEASE=$(target_directory)/release
    export FLWR_EMU_BIN=${FLWR_EMU_BIN:-$RELEASE/flwr-emu} FLWR_LINK_BIN=${FLWR_LINK_BIN:-$RELEASE/flwr-link}
fi
exec "$VENV_PYTHON" "$REPOSITORY/bench/wan.py" "$@"

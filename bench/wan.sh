#!/usr/bin/env bash
# Builds the link emulator and the transfers, then measures QUIC beside gRPC and plain TLS over the
# emulated link. Arguments go to bench/wan.py: see `bash bench/wan.sh --help`.
#
# FLWR_EMU_BIN=PATH and FLWR_LINK_BIN=PATH use these binaries instead of building them. Stock Flower
# (--transports flower-cubic) is that of FLWR_VENV=DIR, or of an environment that is made. Needs root,
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
if [[ " $* " == *flower-* ]]; then
    ensure_venv
    export FLWR_VENV=$VENV FLWR_TELEMETRY_ENABLED=0 no_grpc_proxy=127.0.0.1,localhost,10.77.0.1,10.77.0.2
fi
exec "$VENV_PYTHON" "$REPOSITORY/bench/wan.py" "$@"

#!/usr/bin/env bash
# Builds the transfers, then measures on the loopback what QUIC, gRPC and plain TLS cost in CPU time, and what a
# connection without work costs the server. Arguments go to bench/local.py: see `bash bench/local.sh --help`.
#
# FLWR_LINK_BIN=PATH uses this binary instead of building one.

set -euo pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/common.sh"

if [[ -z ${FLWR_LINK_BIN:-} && " $* " != *" --help "* ]]; then
    check_prerequisites build
    cargo build --release -p flwr-bench-link --manifest-path "$REPOSITORY/Cargo.toml"
    FLWR_LINK_BIN=$(target_directory)/release/flwr-link
    export FLWR_LINK_BIN
fi
exec "$VENV_PYTHON" "$REPOSITORY/bench/local.py" "$@"

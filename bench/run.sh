#!/usr/bin/env bash
# Builds the release binary, makes sure of a Python environment with stock Flower 1.22, and
# measures one beside the other. Arguments go to bench/compare.py: see `bash bench/run.sh --help`.
#
# FLWR_QUIC_BIN=PATH measures this binary instead of building one; FLWR_VENV=DIR uses this
# Python environment instead of making one; so does scripts/demo.sh.

set -euo pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/common.sh"

SUBJECT=${FLWR_QUIC_BIN:-}
if [[ -z $SUBJECT && " $* " != *" --help "* && " $* " != *" --self-comparison "* ]]; then
    check_prerequisites build
    cargo build --release -p flwr-quic --manifest-path "$REPOSITORY/Cargo.toml"
    SUBJECT=${CARGO_TARGET_DIR:-$REPOSITORY/target}/release/flwr-quic
fi
ensure_venv
exec "$VENV/bin/python" "$REPOSITORY/bench/compare.py" ${SUBJECT:+--subject "$SUBJECT"} "$@"

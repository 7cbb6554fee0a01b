#!/usr/bin/env bash
# Builds the release binary, makes sure of a Python environment with stock Flower 1.22, and sends a model of 6 GB round
# through daemons that may use 512 MiB each. Needs root, for control groups, and 50 GB of disk. Arguments go to
# bench/flat.py: see `bash bench/flat.sh --help`.
#
# FLWR_QUIC_BIN=PATH measures this binary instead of building one; FLWR_VENV=DIR uses this Python environment.

set -euo pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/common.sh"

SUBJECT=${FLWR_QUIC_BIN:-}
if [[ -z $SUBJECT && " $* " != *" --help "* ]]; then
    check_prerequisites build
    cargo build --release -p flwr-quic --manifest-path "$REPOSITORY/Cargo.toml"
    SUBJECT=$(target_directory)/release/flwr-quic
fi
ensure_venv
exec "$VENV/bin/python" "$REPOSITORY/bench/flat.py" ${SUBJECT:+--subject "$SUBJECT"} "$@"

#!/usr/bin/env bash
# Measures what it costs to keep state: bytes of large objects beside files that are written and synced one after the
# other, and the CPU time of steps beside those in memory. `bash bench/durability.sh [FOLDER]` writes 1 GB at a time below
# FOLDER, whose disk it measures.

set -euo pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/common.sh"

check_prerequisites build
exec cargo run --release --quiet --manifest-path "$REPOSITORY/Cargo.toml" -p flwr-state-embedded \
    --example durability -- "$@"

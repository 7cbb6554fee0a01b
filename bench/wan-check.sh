#!/usr/bin/env bash
# Builds the link emulator and holds what ping and iperf3 measure over its profiles against what
# was asked for. Arguments go to bench/fedbench/wancheck.py: see `bash bench/wan-check.sh --help`.
#
# FLWR_EMU_BIN=PATH checks this binary instead of building one. Needs root, TUN and iproute2, or
# ends with status 77. As root on Debian it installs ping and iperf3 if they are missing.

set -euo pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/common.sh"

install_tools() {
    local packages=()
    command -v ping >/dev/null || packages+=(iputils-ping)
    command -v iperf3 >/dev/null || packages+=(iperf3)
    [[ ${#packages[@]} -gt 0 && $EUID -eq 0 ]] && command -v apt-get >/dev/null || return 0
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -q "${packages[@]}" >&2 || {
        apt-get update -q >&2 && apt-get install -y -q "${packages[@]}" >&2
    } || say "cannot install ${packages[*]}: the check goes on without" >&2
}

BINARY=${FLWR_EMU_BIN:-}
if [[ -z $BINARY && " $* " != *" --help "* ]]; then
    check_prerequisites build
    cargo build --release -p flwr-bench-emu --manifest-path "$REPOSITORY/Cargo.toml"
    BINARY=${CARGO_TARGET_DIR:-$REPOSITORY/target}/release/flwr-emu
fi
install_tools
PYTHONPATH=$REPOSITORY/bench exec "$VENV_PYTHON" -m fedbench.wancheck ${BINARY:+--binary "$BINARY"} "$@"

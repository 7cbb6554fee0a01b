#!/usr/bin/env bash
# Every check of the repository: formatting, lints, Rust tests, then the Python tests that run stock
# Flower 1.22 programs against the release binary, and those of the Docker deployment. The last line of the output is the sum,
# "N passed, N failed"; a step that fails without a count of its own counts as one failure.

set -euo pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'END'
usage: bash scripts/test.sh [--quick] [PYTEST-ARGUMENT...]

  --quick   without the Python tests marked slow (a gigabyte of arrays, leases that must run out), and without Docker

Anything else goes to pytest, for instance: bash scripts/test.sh -k health; the Docker tests are left out then.
They need an engine, or root on Debian to install and start one; without, they say why they are skipped, and fail with
FLWR_DOCKER_TESTS=must. They refuse an engine with a federation on it, whose data would be lost.
FLWR_E2E_REFERENCE=1 runs the Python tests against stock flower-superlink instead.
END
}

OUTPUT=$REPOSITORY/target/test
PYTEST_ARGUMENTS=()
PASSED=0
FAILED=0

main() {
    parse_arguments "$@"
    check_prerequisites build
    command -v ssh-keygen >/dev/null ||
        fail "ssh-keygen is missing: sudo apt-get install openssh-client"
    cd "$REPOSITORY"
    mkdir -p "$OUTPUT"

    step "formatting" cargo fmt --all --check
    step "lints" cargo clippy --workspace --all-targets --all-features --quiet -- --deny warnings
    rust_tests
    step "release build" cargo build --release --package flwr-quic
    step "Python environment" ensure_venv services/e2e/python/requirements.txt services/e2e/docker/requirements.txt
    python_tests "Python tests" services/e2e/python \
        -n 2 --dist loadfile ${PYTEST_ARGUMENTS[@]+"${PYTEST_ARGUMENTS[@]}"}
    if [[ ${#PYTEST_ARGUMENTS[@]} -eq 0 ]]; then
        python_tests "Docker tests" services/e2e/docker
    fi

    echo
    echo "$PASSED passed, $FAILED failed"
    [[ $FAILED -eq 0 ]]
}

parse_arguments() {
    while [[ $# -gt 0 ]]; do
        case $1 in
            --quick) PYTEST_ARGUMENTS+=(-m "not slow") ;;
            -h | --help)
                usage
                exit 0
                ;;
            *) PYTEST_ARGUMENTS+=("$1") ;;
        esac
        shift
    done
}

# Runs a command under a heading; its failure is one failure.
step() {
    say "== $1"
    shift
    if ! "$@"; then
        FAILED=$((FAILED + 1))
    fi
}

rust_tests() {
    say "== Rust tests"
    local log=$OUTPUT/cargo-test.log status=0 passed failed
    cargo test --workspace --all-features --no-fail-fast 2>&1 | tee "$log" || status=$?
    read -r passed failed < <(
        awk '/^test result: / {
            for (word = 2; word <= NF; word++) {
                if ($word ~ /^passed/) passed += $(word - 1)
                if ($word ~ /^failed/) failed += $(word - 1)
            }
        } END { print passed + 0, failed + 0 }' "$log"
    )
    count "$status" "$passed" "$failed"
}

# python_tests HEADING FOLDER PYTEST-ARGUMENT...
python_tests() {
    say "== $1"
    local folder=$2 report=$OUTPUT/pytest.xml status=0 passed=0 failed=0 binary
    shift 2
    rm -f "$report"
    binary=$(target_directory)/release/flwr-quic
    (
        cd "$REPOSITORY/$folder"
        FLWR_QUIC_BIN=${FLWR_QUIC_BIN:-$binary} "$VENV/bin/python" -m pytest \
            --basetemp="$OUTPUT/pytest" --junitxml="$report" "$@"
    ) || status=$?
    if [[ -f $report ]]; then
        read -r passed failed < <(
            "$VENV/bin/python" - "$report" <<'END'
import sys
from xml.etree import ElementTree

suites = list(ElementTree.parse(sys.argv[1]).getroot().iter("testsuite"))
total, bad, skipped = (
    sum(int(suite.get(name, "0")) for suite in suites for name in names)
    for names in (["tests"], ["failures", "errors"], ["skipped"])
)
print(total - bad - skipped, bad)
END
        )
    fi
    count "$status" "$passed" "$failed"
}

# Adds a step's counts; a bad exit status without a failed test is one failure.
count() {
    local status=$1 passed=$2 failed=$3
    if [[ $status -ne 0 && $failed -eq 0 ]]; then
        failed=1
    fi
    PASSED=$((PASSED + passed))
    FAILED=$((FAILED + failed))
}

main "$@"

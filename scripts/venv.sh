# shellcheck shell=bash
# The Python environment with the stock Flower programs that the demo and the tests run.
#
#   source scripts/venv.sh
#   ensure_venv                # Flower 1.22.0 and scikit-learn from PyPI
#   ensure_venv hpack more.txt # and whatever else is named: packages, requirements files
#   "$VENV/bin/flwr" --version
#
# It is made once in target/venv-flwr-1.22 and reused; half-made ones are made again.
# FLWR_VENV=DIR uses an existing environment, PYTHON=python3.12 another interpreter.

VENV_FLWR_VERSION=1.22.0
VENV_REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${FLWR_VENV:-$VENV_REPOSITORY/target/venv-flwr-${VENV_FLWR_VERSION%.*}}
VENV_PYTHON=${PYTHON:-python3}

# Prints a sentence to standard error and returns 1.
_venv_error() {
    printf 'error: %s\n' "$*" >&2
    return 1
}

# Python 3.9 or newer that can make virtual environments; installs python3-venv if it may.
ensure_python() {
    command -v "$VENV_PYTHON" >/dev/null ||
        { _venv_error "$VENV_PYTHON is missing; install it: sudo apt-get install python3 python3-venv"; return 1; }
    "$VENV_PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 9))' ||
        { _venv_error "$("$VENV_PYTHON" --version) is too old; Flower 1.22 needs Python 3.9 or newer"; return 1; }
    if ! "$VENV_PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
        if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
            echo "installing python3-venv"
            apt-get install -y -q python3-venv >/dev/null ||
                { apt-get update -q >/dev/null && apt-get install -y -q python3-venv >/dev/null; } ||
                { _venv_error "apt-get could not install python3-venv"; return 1; }
        fi
        "$VENV_PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
            { _venv_error "$VENV_PYTHON cannot make virtual environments; install the module: sudo apt-get install python3-venv"; return 1; }
    fi
}

# Makes $VENV if need be, with the packages or requirements files given in addition to Flower's.
ensure_venv() {
    if [[ -n ${FLWR_VENV:-} ]]; then
        [[ -x $VENV/bin/flower-supernode ]] ||
            { _venv_error "FLWR_VENV names $VENV, which has no bin/flower-supernode"; return 1; }
        return
    fi
    mkdir -p "$(dirname "$VENV")"
    local lock
    exec {lock}>"$VENV.lock"
    flock "$lock"
    local status=0
    _venv_make "$@" || status=$?
    exec {lock}>&-
    return "$status"
}

_venv_make() {
    local made=$VENV/made-by-flwr-quic package
    if [[ ! -f $made ]] || ! "$VENV/bin/python" -c '' 2>/dev/null; then
        ensure_python || return 1
        echo "making a Python environment with flwr==$VENV_FLWR_VERSION in ${VENV#"$VENV_REPOSITORY"/}"
        rm -rf "$VENV"
        "$VENV_PYTHON" -m venv "$VENV" || return 1
        _venv_install "flwr==$VENV_FLWR_VERSION" scikit-learn || return 1
        : >"$made"
    fi
    for package in "$@"; do
        local arguments=("$package") mark=$package
        if [[ $package == *.txt ]]; then
            arguments=(-r "$package")
            mark="${package##*/} $(sha256sum <"$package")"
        fi
        if ! grep -qxF -e "$mark" "$made"; then
            # With flwr named again, nothing replaces what it depends on.
            _venv_install "flwr==$VENV_FLWR_VERSION" "${arguments[@]}" || return 1
            echo "$mark" >>"$made"
        fi
    done
}

_venv_install() {
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "$@" ||
        _venv_error "pip could not install $* (is PyPI reachable?)"
}

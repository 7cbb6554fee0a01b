# shellcheck shell=bash
# What the demo and the tests share: messages, prerequisites, the release binary.

REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/venv.sh
source "$REPOSITORY/scripts/venv.sh"

# A heading, in bold on a terminal.
say() {
    if [[ -t 1 ]]; then printf '\033[1m%s\033[0m\n' "$*"; else printf '%s\n' "$*"; fi
}

# Ends the script with a sentence.
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Whether dotted version $1 is at least $2.
version_at_least() {
    [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]
}

# Adds to the `missing` and `packages` of its caller.
_check_build_tools() {
    local wanted found
    # A fresh rustup is not in PATH until the next login.
    if ! command -v cargo >/dev/null && [[ -x $HOME/.cargo/bin/cargo ]]; then
        export PATH=$HOME/.cargo/bin:$PATH
    fi
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$REPOSITORY/Cargo.toml")
    if ! command -v cargo >/dev/null; then
        missing+=("Rust $wanted or newer (cargo): https://rustup.rs")
    else
        found=$(cd "$REPOSITORY" && cargo --version | cut -d ' ' -f 2)
        version_at_least "${found%%-*}" "$wanted" ||
            missing+=("Rust $wanted or newer (found $found): rustup update, or https://rustup.rs")
    fi
    if ! command -v cc >/dev/null; then
        missing+=("a C compiler (cc)")
        packages+=(gcc libc6-dev)
    fi
}

# Python and, for "build" as opposed to "no-build", Rust and a C compiler; names everything that is
# missing at once.
check_prerequisites() {
    local missing=() packages=()
    if [[ $1 == build ]]; then
        _check_build_tools
    fi
    if ! command -v "$VENV_PYTHON" >/dev/null; then
        missing+=("Python 3.9 or newer ($VENV_PYTHON)")
        packages+=(python3 python3-venv)
    elif [[ $EUID -ne 0 ]] && ! "$VENV_PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
        missing+=("Python's venv module")
        packages+=(python3-venv)
    fi
    [[ ${#missing[@]} -eq 0 ]] && return
    printf 'error: missing %s\n' "${missing[@]}" >&2
    if [[ ${#packages[@]} -gt 0 ]]; then
        printf 'install with: sudo apt-get install %s\n' "${packages[*]}" >&2
    fi
    exit 1
}

# Where cargo puts what it builds.
target_directory() {
    (cd "$REPOSITORY" && cargo metadata --format-version 1 --no-deps) |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}

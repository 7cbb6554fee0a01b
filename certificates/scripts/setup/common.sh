# shellcheck shell=bash
# What the scripts beside this one, and those of docker/scripts, share: where certificates lie, and the program that
# makes them.

CERTIFICATES=${FLWR_CERTIFICATES:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Runs flwr-quic of this machine, or else that of an image, which then sees the certificates only.
flwr_quic() {
    local built=$CERTIFICATES/../target/release/flwr-quic image=flwr-quic/superlink:slim
    if [[ -n ${FLWR_QUIC_BINARY:-} ]]; then
        "$FLWR_QUIC_BINARY" "$@"
    elif command -v flwr-quic >/dev/null; then
        flwr-quic "$@"
    elif [[ -x $built ]]; then
        "$built" "$@"
    elif docker image inspect "$image" >/dev/null 2>&1; then
        docker run --rm --network none --user "$(id -u):$(id -g)" --entrypoint flwr-quic \
            --volume "$CERTIFICATES:$CERTIFICATES" "$image" "$@"
    else
        fail "there is no flwr-quic: name it in FLWR_QUIC_BINARY, put it on the PATH, compile it" \
            "(cargo build --release -p flwr-quic), or build the images (docker compose build)"
    fi
}

# put NEW FILE: writes over FILE, which keeps owner and mode.
put() {
    local mode
    if [[ -w $2 || ! -e $2 ]]; then
        cat "$1" >"$2"
    elif [[ -O $2 ]]; then
        mode=$(stat -c %a "$2")
        chmod u+w "$2"
        cat "$1" >"$2"
        chmod "$mode" "$2"
    else
        sudo -n cp "$1" "$2"
    fi
}

# Whether `put` can write over a file. Keys that containers use are their user's.
can_put() {
    [[ ! -e $1 || -w $1 || -O $1 ]] || sudo -n true 2>/dev/null
}

# make_pair KIND PAIR ARGUMENT...: has `flwr-quic certs KIND` make the certificate and key of PAIR, such as
# server/server. Files that are there are written over and not replaced: they keep owner and mode, and containers that
# have them mounted see the new ones.
make_pair() {
    local kind=$1 pair=$2 new suffix
    shift 2
    for suffix in key crt; do
        can_put "$CERTIFICATES/$pair.$suffix" ||
            fail "$CERTIFICATES/$pair.$suffix belongs to $(stat -c %U "$CERTIFICATES/$pair.$suffix"): run this with sudo"
    done
    [[ $kind == ca || -e $CERTIFICATES/ca/ca.key ]] ||
        fail "there is no certificate authority in $CERTIFICATES/ca: ./scripts/setup/generate_ca.sh makes one"
    new=$(mktemp -d "$CERTIFICATES/.new.XXXXXX")
    # shellcheck disable=SC2064 # this folder
    trap "rm -rf '$new'" EXIT
    if [[ $kind != ca ]]; then
        ln -s ../ca "$new/ca"
    fi
    flwr_quic certs "$kind" "$@" --dir "$new" >/dev/null
    mkdir -p "$(dirname "$CERTIFICATES/$pair")"
    [[ -e $CERTIFICATES/$pair.key ]] || install -m 600 /dev/null "$CERTIFICATES/$pair.key"
    for suffix in key crt; do
        put "$new/$pair.$suffix" "$CERTIFICATES/$pair.$suffix"
    done
    echo "wrote $CERTIFICATES/$pair.crt and $CERTIFICATES/$pair.key (private)"
}

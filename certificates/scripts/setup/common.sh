# shellcheck shell=bash
# What the scripts beside this one, and those of docker/scripts, share: where certificates lie, the program that makes
# them, and how files are written that belong to the user of the containers.

CERTIFICATES=${FLWR_CERTIFICATES:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}

# The image that is used where this machine has no flwr-quic of its own.
IMAGE=flwr-quic/superlink:slim

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

[[ -z ${FLWR_QUIC_BINARY:-} || -x $FLWR_QUIC_BINARY ]] ||
    fail "FLWR_QUIC_BINARY names $FLWR_QUIC_BINARY, which cannot be run"

# The flwr-quic of this machine; status 1 if there is none.
program() {
    local built=$CERTIFICATES/../target/release/flwr-quic
    if [[ -n ${FLWR_QUIC_BINARY:-} ]]; then
        echo "$FLWR_QUIC_BINARY"
    elif ! command -v flwr-quic; then
        [[ -x $built ]] && echo "$built"
    fi
}

image_exists() {
    docker image inspect "$IMAGE" >/dev/null 2>&1
}

# in_image USER ROOT PATH... -- COMMAND...: runs a command of the image that was built here, never of one that is pulled,
# with nothing but these paths, which are below ROOT there.
in_image() {
    local user=$1 root=$2 mounts=()
    shift 2
    while [[ $1 != -- ]]; do
        mounts+=(--mount "type=bind,source=$1,target=$root$1")
        shift
    done
    docker run --rm --interactive --pull never --network none --user "$user" "${mounts[@]}" \
        --entrypoint "$2" "$IMAGE" "${@:3}"
}

# Runs flwr-quic of this machine, or else that of the image.
flwr_quic() {
    local found
    if found=$(program); then
        "$found" "$@"
    elif image_exists; then
        in_image "$(id -u):$(id -g)" "" "$CERTIFICATES" ${SECRETS_DIR:+"$SECRETS_DIR"} -- flwr-quic "$@"
    else
        fail "there is no flwr-quic: name it in FLWR_QUIC_BINARY, put it on the PATH, compile it" \
            "(cargo build --release -p flwr-quic), or build the image (in docker/, docker compose build superlink)"
    fi
}

# as_root COMMAND...: for files of the user of the containers. Whoever may use Docker needs no password for it.
as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    elif image_exists; then
        in_image 0:0 "" "$CERTIFICATES" ${SECRETS_DIR:+"$SECRETS_DIR"} -- "$@"
    elif [[ -t 2 ]]; then
        sudo "$@"
    else
        sudo -n "$@"
    fi
}

# make_pair KIND PAIR ARGUMENT...: has `flwr-quic certs KIND` make the certificate and key of PAIR, such as
# server/server. Files that are there are written over and not replaced: they keep owner and mode, and containers that
# have them mounted see the new ones.
make_pair() {
    local kind=$1 pair=$2 new suffix file mode
    shift 2
    if [[ $kind != ca ]]; then
        [[ -e $CERTIFICATES/ca/ca.key ]] ||
            fail "there is no certificate authority in $CERTIFICATES/ca: ./scripts/setup/generate_ca.sh makes one"
        [[ -r $CERTIFICATES/ca/ca.key ]] || not_yours "$CERTIFICATES/ca/ca.key"
    fi
    new=$(mktemp -d "$CERTIFICATES/.new.XXXXXX") || not_yours "$CERTIFICATES"
    # shellcheck disable=SC2064 # this folder
    trap "rm -rf '$new'" EXIT
    if [[ $kind != ca ]]; then
        ln -s ../ca "$new/ca"
    fi
    flwr_quic certs "$kind" "$@" --dir "$new" >/dev/null
    mkdir -p "$(dirname "$CERTIFICATES/$pair")"
    [[ -e $CERTIFICATES/$pair.key ]] || install -m 600 /dev/null "$CERTIFICATES/$pair.key" ||
        not_yours "$(dirname "$CERTIFICATES/$pair")"
    for suffix in key crt; do
        file=$CERTIFICATES/$pair.$suffix
        if [[ -w $file || ! -e $file ]]; then
            cat "$new/$pair.$suffix" >"$file"
        elif [[ -O $file ]]; then
            # Read-only, which holds again afterwards.
            mode=$(stat -c %a "$file")
            chmod u+w "$file"
            cat "$new/$pair.$suffix" >"$file"
            chmod "$mode" "$file"
        else
            as_root tee "$file" <"$new/$pair.$suffix" >/dev/null || not_yours "$file"
        fi
    done
    echo "wrote $CERTIFICATES/$pair.crt and $CERTIFICATES/$pair.key (private)"
}

# not_yours FILE: ends the script.
not_yours() {
    fail "$1 belongs to somebody else. What is here becomes yours again with" \
        "\`sudo chown -R $(id -u):$(id -g) $CERTIFICATES\`; docker/scripts/start-secure.sh gives keys to the containers"
}

# shellcheck shell=bash
# Building the images with what this machine needs to reach its registries.

# build_images SERVICE...: those of all services, unless some are named.
build_images() {
    mkdir -p build/prebuilt
    if [[ -n ${FLWR_QUIC_BINARY:-} ]]; then
        [[ -x $FLWR_QUIC_BINARY ]] || fail "FLWR_QUIC_BINARY names $FLWR_QUIC_BINARY, which cannot be run"
        cp "$FLWR_QUIC_BINARY" build/prebuilt/flwr-quic
    fi
    if [[ -f build/prebuilt/flwr-quic ]]; then
        # Nothing is compiled.
        export RUST_IMAGE=${RUST_IMAGE:-${BASE_IMAGE:-debian:bookworm-slim}}
        echo "   with the flwr-quic of docker/build/prebuilt"
    fi
    export EXTRA_CA=${EXTRA_CA:-$(cat /usr/local/share/ca-certificates/*.crt 2>/dev/null || true)}
    if [[ -z ${PIP_INDEX_URL:-} ]] && command -v pip3 >/dev/null; then
        PIP_INDEX_URL=$(pip3 config get global.index-url 2>/dev/null || true)
        export PIP_INDEX_URL
    fi
    # Not in the Compose file: containers would be made anew whenever one of them changes.
    local name arguments=()
    for name in BASE_IMAGE RUST_IMAGE EXTRA_CA APT_MIRROR PIP_INDEX_URL PIP_EXTRA_INDEX_URL HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        [[ -z ${!name:-} ]] || arguments+=(--build-arg "$name=${!name}")
    done
    "${COMPOSE[@]}" build "${arguments[@]}" "$@" ||
        fail "the images could not be built: behind a proxy, see \"Build Images\" in README.md"
}

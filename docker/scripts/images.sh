# shellcheck shell=bash
# Building the images with what this machine needs to reach its registries.

# Sets `arguments`, those of `docker compose build`.
build_arguments() {
    local name
    arguments=()
    if [[ -f build/prebuilt/flwr-quic ]]; then
        # Nothing is compiled.
        export RUST_IMAGE=${RUST_IMAGE:-${BASE_IMAGE:-debian:bookworm-slim}}
    fi
    export EXTRA_CA=${EXTRA_CA:-$(cat /usr/local/share/ca-certificates/*.crt 2>/dev/null || true)}
    if [[ -z ${PIP_INDEX_URL:-} ]] && command -v pip3 >/dev/null; then
        PIP_INDEX_URL=$(pip3 config get global.index-url 2>/dev/null || true)
        export PIP_INDEX_URL
    fi
    # Not in the Compose file: containers would be made anew whenever one of them changes.
    for name in BASE_IMAGE RUST_IMAGE EXTRA_CA APT_MIRROR PIP_INDEX_URL PIP_EXTRA_INDEX_URL HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        [[ -z ${!name:-} ]] || arguments+=(--build-arg "$name=${!name}")
    done
}

# build_images SERVICE...: those of all services, each once, unless some are named.
build_images() {
    local arguments services=("$@") status=0
    mkdir -p build/prebuilt
    if [[ -n ${FLWR_QUIC_BINARY:-} ]]; then
        # For this build: later ones would go on with it whatever the sources say.
        trap 'rm -f build/prebuilt/flwr-quic' EXIT
        cp "$FLWR_QUIC_BINARY" build/prebuilt/flwr-quic
    fi
    [[ ! -f build/prebuilt/flwr-quic ]] || echo "   with ${FLWR_QUIC_BINARY:-the flwr-quic of docker/build/prebuilt}"
    build_arguments
    if [[ $# -eq 0 ]]; then
        # The other services have the same images.
        # shellcheck disable=SC2153 # of common.sh
        mapfile -t services < <(grep -xE 'superlink|supernode-1|superexec-serverapp' <<<"$SERVICES")
    fi
    "${COMPOSE[@]}" build "${arguments[@]}" "${services[@]}" || status=$?
    [[ -z ${FLWR_QUIC_BINARY:-} ]] || rm build/prebuilt/flwr-quic
    trap - EXIT
    [[ $status -eq 0 ]] || fail "the images could not be built: behind a proxy, see \"Build Images\" in README.md"
}

#!/bin/sh
# Puts flwr-quic into the directory $1: the program of docker/build/prebuilt, or one that is compiled here from the
# sources in the working directory.
set -eu

mkdir -p "$1"
if [ -f docker/build/prebuilt/flwr-quic ]; then
    install -m 755 docker/build/prebuilt/flwr-quic "$1"
else
    # shellcheck source-path=SCRIPTDIR source=apt.sh
    . docker/build/apt.sh
    install_packages gcc libc6-dev
    if [ -n "${EXTRA_CA:-}" ]; then
        { cat /etc/ssl/certs/ca-certificates.crt; printf '\n%s\n' "$EXTRA_CA"; } >/tmp/authorities.pem
        export CARGO_HTTP_CAINFO=/tmp/authorities.pem
    fi
    cargo build --release --locked --package flwr-quic
    install -m 755 target/release/flwr-quic "$1"
    rm -rf target
fi
"$1/flwr-quic" --version || {
    echo "error: this flwr-quic does not run on Debian bookworm: compile it there, or let the build compile it" >&2
    exit 1
}
for daemon in superlink supernode superexec; do
    printf '#!/bin/sh\nexec flwr-quic %s "$@"\n' "$daemon" >"$1/flower-$daemon"
    chmod 755 "$1/flower-$daemon"
done

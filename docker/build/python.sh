#!/bin/sh
# Python and Flower's own programs, which run the apps.
#
#   python.sh install DIR     makes DIR with flwr and what requirements.txt beside this file names
#   python.sh interpreter     the interpreter alone, for an image that gets such a DIR
set -eu

build=$(dirname "$0")
# shellcheck source-path=SCRIPTDIR source=apt.sh
. "$build/apt.sh"

case $1 in
    install)
        install_packages python3 python3-venv ca-certificates
        python3 -m venv "$2"
        if [ -n "${EXTRA_CA:-}" ]; then
            { cat /etc/ssl/certs/ca-certificates.crt; printf '\n%s\n' "$EXTRA_CA"; } >/tmp/authorities.pem
            export PIP_CERT=/tmp/authorities.pem
        fi
        # An argument that is empty is none.
        [ -n "${PIP_INDEX_URL:-}" ] || unset PIP_INDEX_URL
        [ -n "${PIP_EXTRA_INDEX_URL:-}" ] || unset PIP_EXTRA_INDEX_URL
        "$2/bin/pip" install --no-cache-dir --disable-pip-version-check --quiet \
            flwr==1.22.0 -r "$build/requirements.txt"
        # The images have these names for flwr-quic.
        rm "$2/bin/flower-superlink" "$2/bin/flower-supernode" "$2/bin/flower-superexec"
        # pip has done its work.
        "$2/bin/pip" uninstall --yes --quiet --disable-pip-version-check pip setuptools
        ;;
    interpreter)
        install_packages python3
        ;;
esac

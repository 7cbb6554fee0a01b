#!/usr/bin/env bash
# Makes the certificates anew that expire soon: `flwr-quic certs renew --in-place` (--all, --new-keys, --within DAYS), for
# whoever may use Docker also where keys belong to the user of the containers.

set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

renew=(flwr_quic)
if [[ $EUID -ne 0 ]] && image_exists; then
    renew=(in_image 0:0 "" "$CERTIFICATES" -- flwr-quic)
fi
"${renew[@]}" certs renew --in-place --dir "$CERTIFICATES" "$@" ||
    fail "not all of it is renewed; if files belong to somebody else: sudo ${BASH_SOURCE[0]} $*"

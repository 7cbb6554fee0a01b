#!/usr/bin/env bash
# Makes the SuperLink's certificate, server/server.crt and server.key, new if there is one. It is for superlink,
# flower-superlink, localhost, 127.0.0.1 and ::1; for each further name or address that peers use, give --san NAME.

set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

make_pair server server/server "$@"

#!/usr/bin/env bash
# generate_client_cert.sh N: makes the certificate of SuperNode N, clients/clientN.crt and clientN.key, new if there is
# one. It is for supernode-N, flower-supernode-N and the loopback: the SuperNode serves its SuperExec with it, and can
# show it to a SuperLink that asks for client certificates.

set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || fail "which SuperNode is it for? usage: generate_client_cert.sh N, such as 1"
number=$1
shift
make_pair client "clients/client$number" "$number" "$@"

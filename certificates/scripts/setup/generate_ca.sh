#!/usr/bin/env bash
# Makes the certificate authority of this federation: ca/ca.crt, which everybody needs, and ca/ca.key, which signs
# certificates and stays here. One that is there is kept, unless --force is given: then all certificates have to be made
# again.

set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if [[ ${1:-} == --force ]]; then
    shift
elif [[ -e $CERTIFICATES/ca/ca.crt ]]; then
    echo "there is a certificate authority in $CERTIFICATES/ca already; --force makes another one"
    exit
fi
make_pair ca ca/ca "$@"

#!/usr/bin/env bash
# add-supernode.sh N: adds SuperNode N and its SuperExec to the federation: a certificate, the services in
# docker-compose.nodes.yml, and their start. What runs goes on undisturbed.

set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source-path=SCRIPTDIR source=certificates.sh
source "$DEPLOYMENT/scripts/certificates.sh"

# The services of SuperNode $1: those of SuperNode 2 with other numbers. Each is alone in its container, so the port is
# Flower's usual one.
services_of() {
    local number=$1
    awk '/^  [a-z]/ { wanted = /^  (supernode-2|superexec-clientapp-2):/ }
        /^[a-z]/ { wanted = 0 }
        wanted' docker-compose.yml |
        sed -e "s/supernode-2/supernode-$number/g; s/superexec-clientapp-2/superexec-clientapp-$number/g" \
            -e "s/flower-supernode2/flower-supernode$number/g; s/supernode2-/supernode$number-/g" \
            -e "s/client2/client$number/g; s/:9095/:9094/g; s/partition-id=1/partition-id=$((number - 1))/"
}

# The file with the SuperNodes that are given.
nodes() {
    local number
    echo "# Made by scripts/add-supernode.sh, anew each time: what you change goes into docker-compose.override.yml."
    # What the services refer to.
    sed -n '/^x-/,/^services:/p' docker-compose.yml
    for number in "$@"; do services_of "$number"; done
    echo "volumes:"
    for number in "$@"; do
        echo "  supernode$number-data: {name: flower-supernode$number-data}"
        echo "  supernode$number-cache: {name: flower-supernode$number-cache}"
    done
}

[[ ${1:-} =~ ^[1-9][0-9]{0,4}$ && $# -eq 1 ]] || fail "which one? usage: ./scripts/add-supernode.sh N, such as 3"
number=$1
[[ $number -ge 3 ]] || fail "SuperNodes 1 and 2 are in docker-compose.yml: the next one is 3"
require_engine
[[ -n $(docker ps -q --filter name='^flower-superlink$') ]] ||
    fail "the federation does not run: ./scripts/start-secure.sh first"
grep -qx supernode-2 <<<"$SERVICES" || fail "COMPOSE_FILE names another deployment than docker-compose.yml"

say "1. Certificate"
if ! is_there "clients/client$number.key"; then
    [[ -z ${SECRETS_DIR:-} ]] || fail "$(private "clients/client$number.key") is missing: \`cd ../certificates &&" \
        "./scripts/setup/generate_client_cert.sh $number\` makes clients/client$number.key, which belongs there"
    "$CERTIFICATES/scripts/setup/generate_client_cert.sh" "$number"
fi
grep -qx "supernode-$number" <<<"$SERVICES" || SERVICES+=$'\n'"supernode-$number"
certificates_exist
certificates_verify no
join_secrets_exist
certificates_permit no
certificates_readable
say "2. Services in $ADDED"
numbers=$(sed -n 's/^  supernode-\([0-9]*\):$/\1/p' "$ADDED" 2>/dev/null || true)
# shellcheck disable=SC2046,SC2086 # one word for each number
nodes $(printf '%s\n' $numbers "$number" | sort -nu) >"$ADDED.new"
mv "$ADDED.new" "$ADDED"
name_compose_files
require_engine
say "3. Start"
"${COMPOSE[@]}" up -d --no-build --no-recreate "supernode-$number" "superexec-clientapp-$number"
echo "SuperNode $number is started. Its partition-id is $((number - 1)); for num-partitions=$number on all nodes, set" \
    "NUM_PARTITIONS=$number and run ./scripts/start-secure.sh, which starts the SuperNodes anew." \
    "Compose by hand knows it with COMPOSE_FILE=$COMPOSE_FILE"

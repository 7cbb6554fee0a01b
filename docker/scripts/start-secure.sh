#!/usr/bin/env bash
# Starts the federation: looks at the certificates, lets the containers read them, builds the images, starts everything
# and waits until all of it is healthy. What runs already is left as it is.

set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source-path=SCRIPTDIR source=certificates.sh
source "$DEPLOYMENT/scripts/certificates.sh"
# shellcheck source-path=SCRIPTDIR source=images.sh
source "$DEPLOYMENT/scripts/images.sh"

usage() {
    cat <<'END'
usage: ./scripts/start-secure.sh [--check] [--no-build] [--strict]

  --check      look at the certificates and let the containers read them, and start nothing
  --no-build   use the images that there are
  --strict     refuse private keys and join secrets that others than their owner and group can read

environment:
  TRANSPORT=quic         SuperNodes reach the SuperLink over QUIC instead of gRPC
  COMPOSE_FILE=a:b       Compose files, such as docker-compose.yml:docker-compose.internal.yml
  SECRETS_DIR=DIR        where private keys and join secrets lie instead of ../certificates
  FLWR_QUIC_BINARY=PATH  put this flwr-quic into the images instead of compiling one
  EXTRA_CA=PEM           trust this CA in builds; by default those of /usr/local/share/ca-certificates
  START_SECONDS=N        how long everything may take to become healthy and ready (180)
END
}

main() {
    local check=no build=yes strict=no
    while [[ $# -gt 0 ]]; do
        case $1 in
            --check) check=yes ;;
            --no-build) build=no ;;
            --strict) strict=yes ;;
            -h | --help) usage; exit ;;
            *) usage >&2; exit 2 ;;
        esac
        shift
    done
    require_engine

    say "1. Certificates are there"
    certificates_exist
    # Its program looks at certificates where this machine has none, and its root gives files away where nobody else may.
    if ! image_exists && { [[ $EUID -ne 0 ]] || ! program >/dev/null; }; then
        say "4. Images, which the next steps take"
        [[ $build == yes ]] || fail "there is no image $IMAGE: leave --no-build out"
        # shellcheck disable=SC2119 # all
        build_images
        build=no
    fi
    say "2. They are valid and belong together"
    certificates_verify "$strict"
    say "3. The containers may read them"
    join_secrets_exist
    certificates_permit "$strict"
    if [[ $check == yes ]]; then
        echo "The certificates are right."
        exit
    fi
    if [[ $build == yes ]]; then
        say "4. Images"
        # shellcheck disable=SC2119 # all
        build_images
    fi
    image_exists || fail "there is no image $IMAGE: leave --no-build out"
    certificates_readable
    say "5. Containers"
    ports_are_free
    start
    say "All containers are healthy and ready."
    echo "Next: flwr run . local-deployment --stream, and ./scripts/check-status.sh"
}

# Only Docker can take ports that its own containers have.
ports_are_free() {
    local published address port
    [[ -z $(docker ps -q --filter name='^flower-superlink$') ]] || return 0
    for published in "${CONTROL_PUBLISH:-127.0.0.1:9093}" "${FLEET_PUBLISH:-127.0.0.1:9092}"; do
        port=${published##*:}
        address=${published%:*}
        [[ $address != 0.0.0.0 && $address != "$published" ]] || address=127.0.0.1
        if (exec 3<>"/dev/tcp/$address/$port") 2>/dev/null; then
            fail "port $port is in use on this machine: \`sudo lsof -i :$port\` says by whom. End that program, or" \
                "publish another port: CONTROL_PUBLISH and FLEET_PUBLISH, such as CONTROL_PUBLISH=127.0.0.1:19093"
        fi
    done
}

# Starts everything and waits until it is of use. Compose itself waits for those that others depend on, and does not see
# that one ends again and again.
start() {
    local end=$((SECONDS + ${START_SECONDS:-180})) up
    "${COMPOSE[@]}" up -d --no-build --remove-orphans &
    up=$!
    # shellcheck disable=SC2064 # this process; Ctrl-C does not reach it
    trap "kill $up 2>/dev/null || true" EXIT
    while kill -0 "$up" 2>/dev/null; do
        if [[ $SECONDS -ge $end ]] || one_keeps_ending; then give_up; fi
        sleep 0.5
    done
    trap - EXIT
    wait "$up" || give_up
    until all_well; do
        if [[ $SECONDS -ge $end ]] || one_keeps_ending; then give_up; fi
        sleep 0.5
    done
}

all_well() {
    local service container
    for service in $SERVICES; do
        container=$(container_of "$service")
        [[ -n $container && -z $(what_ails "$container") ]] || return 1
    done
}

# Whether a container has ended for the third time and more, and waits for its next start.
one_keeps_ending() {
    local containers
    containers=$(docker ps -q --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" --filter status=restarting)
    # shellcheck disable=SC2086 # one word for each
    [[ -n $containers ]] && docker inspect --format '{{.RestartCount}}' $containers 2>/dev/null | grep -qE '[3-9]|..'
}

# Ends the script, after which containers are not well, and why.
give_up() {
    local service container ails
    for service in $SERVICES; do
        container=$(container_of "$service")
        if [[ -z $container ]]; then
            warn "$service was not started: what it waits for is not healthy"
            continue
        fi
        ails=$(what_ails "$container")
        [[ -n $ails ]] || continue
        warn "$service is $ails"
        echo "   the last lines of \`docker logs $(docker inspect --format '{{slice .Name 1}}' "$container")\`:" >&2
        docker logs --tail 15 "$container" 2>&1 | sed 's/^/   | /' >&2
    done
    fail "not everything could be started and became healthy and ready, see above"
}

main "$@"

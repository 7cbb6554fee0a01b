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
  --strict     refuse private keys that others than their owner and group can read, and let nobody else read them

environment:
  TRANSPORT=quic         SuperNodes reach the SuperLink over QUIC instead of gRPC
  COMPOSE_FILE=a:b       Compose files, such as docker-compose.yml:docker-compose.secrets.yml
  FLWR_QUIC_BINARY=PATH  put this flwr-quic into the images instead of compiling one
  EXTRA_CA=PEM           trust this CA in builds; by default those of /usr/local/share/ca-certificates
  START_SECONDS=N        how long everything may take to become healthy (180)
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
    certificates_readable
    say "5. Containers"
    ports_are_free
    start
    wait_until_healthy
    say "All containers are healthy."
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

start() {
    local status=0
    timeout "${START_SECONDS:-180}" "${COMPOSE[@]}" up -d --no-build --remove-orphans || status=$?
    [[ $status -eq 0 ]] || { report; fail "the containers could not all be started, see above"; }
}

wait_until_healthy() {
    local end=$((SECONDS + ${START_SECONDS:-180}))
    until all_healthy; do
        [[ $SECONDS -lt $end ]] || { report; fail "not everything became healthy, see above"; }
        sleep 0.5
    done
}

all_healthy() {
    local service container
    for service in $SERVICES; do
        container=$(container_of "$service")
        [[ -n $container ]] || return 1
        case $(health_of "$container") in
            healthy | running) ;;
            *) return 1 ;;
        esac
    done
}

# Which containers are not well, and why.
report() {
    local service container health
    for service in $SERVICES; do
        container=$(container_of "$service")
        if [[ -z $container ]]; then
            warn "$service was not started: what it waits for is not healthy"
            continue
        fi
        health=$(health_of "$container")
        case $health in
            healthy | running) continue ;;
        esac
        warn "$service is $health. $(last_check_of "$container")"
        echo "   the last lines of \`docker logs $(docker inspect --format '{{slice .Name 1}}' "$container")\`:" >&2
        docker logs --tail 15 "$container" 2>&1 | sed 's/^/   | /' >&2
    done
}

main "$@"

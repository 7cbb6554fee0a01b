#!/usr/bin/env bash
# How the federation is, and its logs.

set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'END'
usage: ./scripts/check-status.sh [-s SERVICE] [-l | --logs] [-f | --follow]

  -s, --service SERVICE   this one only, such as superlink or supernode-1
  -l, --logs              the latest lines of the logs
  -f, --follow            the logs as they are written, until Ctrl-C

Without --logs and --follow: containers, network, volumes and certificates. Status 1 if a container is not healthy, or a
daemon not connected to those that it works with.
END
}

main() {
    local service='' what=status
    while [[ $# -gt 0 ]]; do
        case $1 in
            -s | --service)
                [[ -n ${2:-} ]] || { usage >&2; exit 2; }
                service=$2
                shift
                ;;
            -l | --logs) what=logs ;;
            -f | --follow) what=follow ;;
            -h | --help) usage; exit ;;
            *) usage >&2; exit 2 ;;
        esac
        shift
    done
    require_engine
    if [[ -n $service ]] && ! grep -qxF -e "$service" <<<"$SERVICES"; then
        fail "there is no service $service; there are: $(sort <<<"$SERVICES" | tr '\n' ' ')"
    fi
    case $what in
        logs) "${COMPOSE[@]}" logs --tail=100 ${service:+"$service"} ;;
        follow) "${COMPOSE[@]}" logs --tail=20 -f ${service:+"$service"} ;;
        status) status "$service" ;;
    esac
}

status() {
    local wrong=0
    say "Containers"
    containers "$1" || wrong=1
    if [[ -z $1 ]]; then
        say "Network"
        docker network ls --filter name=flower-fl-network --format '  {{.Name}} ({{.Driver}})'
        say "Volumes"
        docker volume ls --filter name=flower- --format '  {{.Name}}'
        say "Certificates"
        certificates_left
    fi
    return "$wrong"
}

containers() {
    local names=$1 service container health ails wrong=0
    [[ -n $names ]] || names=$(sort <<<"$SERVICES")
    for service in $names; do
        container=$(container_of "$service")
        if [[ -z $container ]]; then
            printf '  %-24s not started\n' "$service"
            wrong=1
            continue
        fi
        health=$(health_of "$container")
        docker inspect --format \
            "{{printf \"  %-24s %-12s since %.19s  restarts %d\" \"$service\" \"$health\" .State.StartedAt .RestartCount}}" \
            "$container"
        ails=$(what_ails "$container")
        [[ -z $ails ]] || { echo "    $ails"; wrong=1; }
    done
    return "$wrong"
}

certificates_left() {
    local file
    program >/dev/null || image_exists || { echo "  unknown: there is no flwr-quic and no image $IMAGE"; return; }
    for file in "$CERTIFICATES"/ca/ca.crt "$CERTIFICATES"/server/server.crt "$CERTIFICATES"/clients/client*.crt; do
        if [[ -f $file ]]; then
            flwr_quic certs show "$file" | sed -n "s|^ *valid until *|  ${file#"$CERTIFICATES/"} until |p"
        fi
    done
}

main "$@"

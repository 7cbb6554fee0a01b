# shellcheck shell=bash
# What the scripts beside this one share: the engine, Compose, and which SuperNodes there are.

DEPLOYMENT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=../../certificates/scripts/setup/common.sh
source "$DEPLOYMENT/../certificates/scripts/setup/common.sh"
cd "$DEPLOYMENT" || exit

# The SuperNodes that add-supernode.sh has added to docker-compose.yml.
ADDED=docker-compose.nodes.yml

# setting NAME: what .env says, as Compose takes it: the last line counts, without quotes and comments.
setting() {
    sed -nE "s/^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*=[[:space:]]*//p" .env 2>/dev/null | tail -n 1 |
        sed -E "s/^'([^']*)'.*/\1/; t; s/^\"([^\"]*)\".*/\1/; t; s/[[:space:]]+#.*//; s/[[:space:]]+$//"
}

# What the scripts need to know of it themselves; the environment comes first.
for name in COMPOSE_PROJECT_NAME COMPOSE_FILE SECRETS_DIR CONTROL_PUBLISH FLEET_PUBLISH; do
    if [[ -z ${!name+set} ]] && value=$(setting "$name") && [[ -n $value ]]; then
        export "$name=$value"
    fi
done
export COMPOSE_PROJECT_NAME=${COMPOSE_PROJECT_NAME:-flower}
if [[ -n ${SECRETS_DIR:-} ]]; then
    SECRETS_DIR=$(realpath -m "$SECRETS_DIR")
    [[ -d $SECRETS_DIR ]] || fail "SECRETS_DIR names $SECRETS_DIR, which is no directory"
    export SECRETS_DIR
fi

# Compose reads docker-compose.yml and the operator's docker-compose.override.yml by itself, but no third file: where
# SuperNodes were added, all of them are named.
name_compose_files() {
    local override
    [[ -f $ADDED && ":${COMPOSE_FILE:-}:" != *":$ADDED:"* ]] || return 0
    if [[ -z ${COMPOSE_FILE:-} ]]; then
        COMPOSE_FILE=docker-compose.yml
        for override in docker-compose.override.y*ml; do
            [[ ! -f $override ]] || COMPOSE_FILE+=:$override
        done
    fi
    # A deployment without docker-compose.yml is another one, which they are not part of.
    COMPOSE_FILE=:$COMPOSE_FILE:
    COMPOSE_FILE=${COMPOSE_FILE/:docker-compose.yml:/:docker-compose.yml:$ADDED:}
    COMPOSE_FILE=${COMPOSE_FILE#:}
    export COMPOSE_FILE=${COMPOSE_FILE%:}
}
name_compose_files

say() {
    if [[ -t 1 ]]; then printf '\033[1m%s\033[0m\n' "$*"; else printf '%s\n' "$*"; fi
}

warn() {
    printf 'warning: %s\n' "$*" >&2
}

# Ends the script unless there are an engine that answers, Compose, which is COMPOSE afterwards, and Compose files that
# are right, whose services are SERVICES, one a line.
require_engine() {
    local said
    command -v docker >/dev/null ||
        fail "Docker is not installed: https://docs.docker.com/engine/install, or apt-get install docker.io docker-compose"
    said=$(docker version --format '{{.Server.Version}}' 2>&1) ||
        fail "the Docker engine does not answer; is it running (systemctl start docker), and may you use it" \
            "(usermod -aG docker $(id -un 2>&1))? It says: $said"
    if docker compose version >/dev/null 2>&1; then
        COMPOSE=(docker compose)
    elif command -v docker-compose >/dev/null; then
        COMPOSE=(docker-compose)
    else
        fail "Compose is not installed: apt-get install docker-compose, or docker-compose-plugin"
    fi
    SERVICES=$("${COMPOSE[@]}" config --services) || fail "the Compose files are not right, see above"
}

# The numbers of the SuperNodes among the services.
supernodes() {
    sed -n 's/^supernode-\([0-9]*\)$/\1/p' <<<"$SERVICES" | sort -n
}

# container_of SERVICE: its id, also if it has ended; nothing if there is none.
container_of() {
    docker ps -aq --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" \
        --filter "label=com.docker.compose.service=$1" | head -n 1
}

HEALTH='{{if .State.Running}}{{if .State.Health}}{{.State.Health.Status}}{{else}}running{{end}}{{else}}{{.State.Status}} ({{.State.ExitCode}}){{end}}'

# health_of CONTAINER: healthy, unhealthy, starting, or what it does instead of running.
health_of() {
    docker inspect --format "$HEALTH" "$1"
}

# What the last health check of a container said.
last_check_of() {
    docker inspect --format '{{if .State.Health}}{{range .State.Health.Log}}{{println .Output}}{{end}}{{end}}' "$1" |
        sed '/^$/d' | tail -n 1
}

# what_ails CONTAINER: why a container is of no use; nothing if it is well. A daemon that is healthy lives: whether it
# reaches those that it works with is what /readyz of its metrics says.
what_ails() {
    local health answer
    health=$(docker inspect --format "$HEALTH {{json .Config.Env}}" "$1")
    case $health in
        'healthy '* | 'running '*) ;;
        starting* | unhealthy*)
            echo "${health%% *}. $(last_check_of "$1")"
            return
            ;;
        *)
            echo "${health%% [*}"
            return
            ;;
    esac
    [[ $health == *'"FLWR_QUIC_METRICS_ADDRESS='[^\"]* ]] || return 0
    # shellcheck disable=SC2016 # the container's
    answer=$(docker exec "$1" bash -c 'exec 3<>"/dev/tcp/127.0.0.1/${FLWR_QUIC_METRICS_ADDRESS##*:}" &&
        printf "GET /readyz HTTP/1.0\r\n\r\n" >&3 && timeout 10 cat <&3' 2>&1 | tr -d '\r') || true
    case $answer in
        HTTP/1.?' 200 '*) ;;
        HTTP/1.?' '*) echo "${health%% *}, but not ready: ${answer##*$'\n\n'}" ;;
        *) echo "${health%% *}, but does not say whether it is ready: $answer" ;;
    esac
}

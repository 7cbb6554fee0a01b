# shellcheck shell=bash
# What the scripts beside this one share: the engine, Compose, and which SuperNodes there are.

DEPLOYMENT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=../../certificates/scripts/setup/common.sh
source "$DEPLOYMENT/../certificates/scripts/setup/common.sh"
cd "$DEPLOYMENT" || exit

# The SuperNodes that add-supernode.sh has added to docker-compose.yml. Compose reads it by itself, unless files are named.
ADDED=docker-compose.override.yml
if [[ -f $ADDED && ":${COMPOSE_FILE:-}:" == *:docker-compose.yml:* && ":$COMPOSE_FILE:" != *":$ADDED:"* ]]; then
    export COMPOSE_FILE=$COMPOSE_FILE:$ADDED
fi
# What .env says and the environment does not, as Compose takes it.
while IFS='=' read -r name value; do
    [[ $name =~ ^[A-Z_]+$ && -z ${!name+set} ]] && export "$name=$value"
done <.env

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
            "(usermod -aG docker $(id -un))? It says: $said"
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

# health_of CONTAINER: healthy, unhealthy, starting, or what it does instead of running.
health_of() {
    docker inspect --format '{{if .State.Running}}{{if .State.Health}}{{.State.Health.Status}}{{else}}running{{end}}{{else}}{{.State.Status}} ({{.State.ExitCode}}){{end}}' "$1"
}

# What the last health check of a container said.
last_check_of() {
    docker inspect --format '{{if .State.Health}}{{range .State.Health.Log}}{{println .Output}}{{end}}{{end}}' "$1" |
        sed '/^$/d' | tail -n 1
}

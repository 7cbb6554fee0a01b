#!/usr/bin/env bash
# Stops the federation. Data is kept unless it is said otherwise.

set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'END'
usage: ./scripts/stop-secure.sh [--volumes] [--images] [--all]

  --volumes   remove the volumes too: state, models, caches
  --images    remove the images too
  --all       both
END
}

flags=()
while [[ $# -gt 0 ]]; do
    case $1 in
        --volumes) flags+=(--volumes) ;;
        --images) flags+=(--rmi all) ;;
        --all) flags+=(--volumes --rmi all) ;;
        -h | --help) usage; exit ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done

require_engine
"${COMPOSE[@]}" down --remove-orphans "${flags[@]}"
say "The federation is stopped."
case " ${flags[*]} " in
    *" --volumes "*) echo "Its data is removed. Certificates are where they were." ;;
    *) echo "Its data is kept: docker volume ls --filter name=flower-" ;;
esac

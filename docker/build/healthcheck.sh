#!/bin/sh
# Docker's question whether this container is well. Docker marks one that is not, and leaves it as it is; so a process
# that has served and then does not answer several times in a row is ended here, and the restart policy starts it again.
set -u

# Memory of this life of the container: it begins empty at every start.
failures=/dev/shm/flwr-quic-failures

if answer=$(flwr-quic health 2>&1); then
    echo 0 >"$failures"
    echo "$answer"
    exit 0
fi
echo "$answer"
# Whoever has never answered is still starting, which may take long: a large database is read first.
[ -f "$failures" ] || exit 1

count=$(($(cat "$failures") + 1))
echo "$count" >"$failures"
if [ "$count" -ge "${FLWR_QUIC_FAILURES_MAX:-5}" ]; then
    said="flwr-quic-healthcheck: no answer $count times in a row: ending the process. $answer"
    echo "$said"
    # The container's log tells as well.
    echo "$said" 2>/dev/null >/proc/1/fd/2 || true
    # The children of the init, which then ends with the container.
    read -r children </proc/1/task/1/children
    for child in $children; do
        kill -KILL "$child"
    done
fi
exit 1

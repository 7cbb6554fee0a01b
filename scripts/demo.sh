#!/usr/bin/env bash
# A whole federation on this machine, from nothing: builds flwr-quic, makes certificates and a
# Python environment with stock Flower 1.22, starts a SuperLink with TLS and two SuperNodes, trains
# an unmodified app on them, a digit recogniser, reports, and cleans up. See usage() for the options.

set -euo pipefail

# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'END'
usage: bash scripts/demo.sh [--keep] [--rounds N] [--transport quic | --stock-supernodes | --stock]

  --keep              keep the federation running afterwards, until Ctrl-C
  --rounds N          train for N rounds (default 3)
  --transport quic    with the SuperNodes on QUIC instead of gRPC
  --stock-supernodes  with Flower's own flower-supernode instead of ours
  --stock             with nothing of ours, for comparison (needs openssl)

environment:
  FLWR_QUIC_BIN=PATH  use this flwr-quic binary instead of building one
  FLWR_VENV=DIR       use this Python environment instead of making one
END
}

LOGS=$REPOSITORY/target/demo
KEEP=no
ROUNDS=3
STOCK=no     # yes: nothing of ours
SUPERNODES=ours
TRANSPORT=grpc
WORK=        # temporary folder: certificates, Flower's home, the app
DAEMONS=()   # process ids to end, newest last
STEP=        # process id of the step that is waited for
LAST_LOG=    # log to point at if the current step fails

main() {
    parse_arguments "$@"
    if [[ $STOCK == yes || -n ${FLWR_QUIC_BIN:-} ]]; then
        check_prerequisites no-build
    else
        check_prerequisites build
    fi
    mkdir -p "$LOGS"
    rm -f "$LOGS"/*.log
    WORK=$(mktemp -d)
    trap 'clean_up' EXIT
    trap 'printf "\ninterrupted\n" >&2; exit 130' INT
    trap 'exit 143' TERM HUP

    build
    say "2. Python environment with stock Flower $VENV_FLWR_VERSION"
    LAST_LOG=
    # shellcheck disable=SC2119 # no packages beyond Flower's
    ensure_venv
    echo "   ${VENV#"$REPOSITORY"/}"
    make_certificates
    choose_ports
    # Nothing of this demo touches the user's ~/.flwr, and no proxy sits on the loopback.
    export FLWR_HOME=$WORK/flwr-home PATH=$VENV/bin:$PATH PYTHONUNBUFFERED=1 COLUMNS=250
    export FLWR_TELEMETRY_ENABLED=0 no_grpc_proxy=127.0.0.1,localhost
    mkdir -p "$FLWR_HOME"
    start_superlink
    start_supernodes
    run_app
    report
    if [[ $KEEP == yes ]]; then keep_running; fi
}

parse_arguments() {
    while [[ $# -gt 0 ]]; do
        case $1 in
            --keep) KEEP=yes ;;
            --transport)
                [[ ${2:-} == grpc || ${2:-} == quic ]] || fail "--transport is grpc or quic"
                TRANSPORT=$2
                shift
                ;;
            --stock-supernodes) SUPERNODES=stock ;;
            --stock) STOCK=yes SUPERNODES=stock ;;
            --rounds)
                [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || fail "--rounds needs a number"
                ROUNDS=$2
                shift
                ;;
            -h | --help)
                usage
                exit 0
                ;;
            *)
                usage >&2
                exit 2
                ;;
        esac
        shift
    done
    if [[ $TRANSPORT == quic && $SUPERNODES == stock ]]; then
        fail "Flower's own SuperNodes do not speak QUIC: leave out --transport quic or --stock..."
    fi
}

# -- steps ---------------------------------------------------------------------------------------

build() {
    if [[ $STOCK == yes ]]; then
        say "1. SuperLink: Flower's own flower-superlink, for comparison"
        SUPERLINK=(flower-superlink)
        SUPERNODE=(flower-supernode)
        return
    fi
    if [[ -n ${FLWR_QUIC_BIN:-} ]]; then
        BINARY=$(realpath "$FLWR_QUIC_BIN")
        [[ -x $BINARY ]] || fail "FLWR_QUIC_BIN names $FLWR_QUIC_BIN, which cannot be run"
        say "1. SuperLink: $FLWR_QUIC_BIN"
    else
        say "1. Building flwr-quic (a few minutes the first time)"
        LAST_LOG=$LOGS/build.log
        in_step cargo build --release -p flwr-quic --manifest-path "$REPOSITORY/Cargo.toml" \
            > >(tee "$LAST_LOG") 2>&1 || fail "the build failed"
        BINARY=$(target_directory)/release/flwr-quic
        echo "   ${BINARY#"$REPOSITORY"/}"
    fi
    # Flower's own programs find gRPC beside QUIC.
    local served=grpc
    [[ $TRANSPORT == quic ]] && served=grpc,quic
    SUPERLINK=("$BINARY" superlink --transport "$served")
    SUPERNODE=("$BINARY" supernode --transport "$TRANSPORT")
    if [[ $SUPERNODES == stock ]]; then SUPERNODE=(flower-supernode); fi
}

make_certificates() {
    say "3. Certificates: a certificate authority, and a server certificate for 127.0.0.1"
    CERTS=$WORK/certificates
    LAST_LOG=$LOGS/certificates.log
    mkdir -p "$CERTS"
    if [[ $STOCK == yes ]]; then
        command -v openssl >/dev/null || fail "openssl is missing: sudo apt-get install openssl"
        openssl_certificates >"$LAST_LOG" 2>&1 || fail "openssl could not make certificates"
    else
        {
            "$BINARY" certs ca --dir "$CERTS" && "$BINARY" certs server --dir "$CERTS"
        } >"$LAST_LOG" 2>&1 || fail "flwr-quic could not make certificates"
    fi
    CA_CERT=$(first_file "$CERTS/ca.crt" "$CERTS/ca/ca.crt")
    SERVER_CERT=$(first_file "$CERTS/server.pem" "$CERTS/server/server.crt")
    SERVER_KEY=$(first_file "$CERTS/server.key" "$CERTS/server/server.key")
    echo "   in a temporary folder"
}

openssl_certificates() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
        -subj "/CN=demo CA" -keyout "$CERTS/ca.key" -out "$CERTS/ca.crt"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=localhost" \
        -keyout "$CERTS/server.key" -out "$CERTS/server.csr"
    openssl x509 -req -in "$CERTS/server.csr" -CA "$CERTS/ca.crt" -CAkey "$CERTS/ca.key" \
        -CAcreateserial -days 2 -out "$CERTS/server.pem" \
        -extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1")
}

# The first of the arguments that is a file.
first_file() {
    local path
    for path in "$@"; do
        if [[ -f $path ]]; then
            echo "$path"
            return
        fi
    done
    fail "none of these files was made: $*"
}

choose_ports() {
    local wanted=(9091 9092 9093 9094 9095) chosen
    LAST_LOG=
    chosen=$("$VENV/bin/python" - "${wanted[@]}" <<'END'
import socket, sys

def bind(port):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener

held = []
for port in map(int, sys.argv[1:]):
    try:
        held.append(bind(port))
    except OSError:
        held.append(bind(0))
print(*(listener.getsockname()[1] for listener in held))
END
    )
    read -r APPIO_PORT FLEET_PORT CONTROL_PORT NODE0_PORT NODE1_PORT <<<"$chosen"
    if [[ $chosen != "${wanted[*]}" ]]; then
        echo "   Flower's ports ${wanted[*]} are not all free here; using $chosen"
    fi
}

start_superlink() {
    say "4. SuperLink with TLS: Fleet 127.0.0.1:$FLEET_PORT, Control 127.0.0.1:$CONTROL_PORT"
    start superlink "${SUPERLINK[@]}" \
        --ssl-ca-certfile "$CA_CERT" --ssl-certfile "$SERVER_CERT" --ssl-keyfile "$SERVER_KEY" \
        --serverappio-api-address "127.0.0.1:$APPIO_PORT" \
        --fleet-api-address "127.0.0.1:$FLEET_PORT" \
        --control-api-address "127.0.0.1:$CONTROL_PORT"
    wait_until 60 "the SuperLink listens" ports_open "$APPIO_PORT" "$FLEET_PORT" "$CONTROL_PORT"
    echo "   process ${DAEMONS[-1]}, listening"
}

start_supernodes() {
    say "5. Two SuperNodes (${SUPERNODE[*]##*/}), each with half of the training images"
    local index ports=("$NODE0_PORT" "$NODE1_PORT")
    for index in 0 1; do
        start "supernode-$index" "${SUPERNODE[@]}" --root-certificates "$CA_CERT" \
            --superlink "127.0.0.1:$FLEET_PORT" \
            --clientappio-api-address "127.0.0.1:${ports[index]}" \
            --node-config "partition-id=$index num-partitions=2"
    done
    wait_until 60 "both SuperNodes are online" nodes_online 2
    wait_until 60 "the SuperNodes listen" ports_open "$NODE0_PORT" "$NODE1_PORT"
    echo "   processes ${DAEMONS[-2]} and ${DAEMONS[-1]}, online"
}

run_app() {
    say "6. flwr run examples/digits --stream (rounds: $ROUNDS)"
    APP=$WORK/digits
    cp -R "$REPOSITORY/examples/digits" "$APP"
    LAST_LOG=$LOGS/run.log
    : >"$LAST_LOG"
    FEDERATION_CONFIG="address=\"127.0.0.1:$CONTROL_PORT\" root-certificates=\"$CA_CERT\""
    (
        cd "$APP"
        exec setsid flwr run . local-deployment --stream --federation-config "$FEDERATION_CONFIG" \
            --run-config "num-server-rounds=$ROUNDS"
    ) >"$LAST_LOG" 2>&1 &
    local cli=$!
    DAEMONS+=("$cli")
    in_step tail --lines=+1 --follow --pid="$cli" --sleep-interval=0.2 "$LAST_LOG" \
        > >(sed -u -n 's/^\(untrained\|round [0-9]*\): accuracy .*/   &/p') || true
    wait "$cli" || fail "flwr run failed"
    local finished
    finished=$(grep -cE '^round [0-9]+: accuracy' "$LAST_LOG" || true)
    [[ $finished -eq $ROUNDS ]] || fail "the run ended after $finished of $ROUNDS rounds"
    RUN_ID=$(sed -n 's/.*Successfully started run \([0-9]*\).*/\1/p' "$LAST_LOG")
    # The log ends a moment before the run is marked as finished.
    wait_until 30 "the run is finished" run_is_completed
}

run_is_completed() {
    (
        cd "$APP"
        flwr ls . local-deployment --run-id "$RUN_ID" --format json \
            --federation-config "$FEDERATION_CONFIG"
    ) 2>&1 | grep -q '"finished:completed"'
}

report() {
    local accuracy mean
    accuracy=$(sed -n 's/^round [0-9]*: accuracy \([0-9.]*\).*/\1/p' "$LOGS/run.log" | tail -n 1)
    mean=$(sed -n 's/^round [0-9]*: accuracy .*(\([0-9.]*\) s)$/\1/p' "$LOGS/run.log" |
        awk '{ sum += $1 } END { printf "%.1f", sum / NR }')
    echo
    say "Done: accuracy $accuracy after round $ROUNDS, $mean s a round (run $RUN_ID, finished:completed)."
    cat <<END
SuperLink: ${SUPERLINK[*]##*/}. SuperNodes: ${SUPERNODE[*]##*/}.
flwr, flwr-serverapp, flwr-clientapp and the flwr that the app imports are Flower $VENV_FLWR_VERSION as
published. The logs are in target/demo/.

What to try next:
  bash scripts/demo.sh --keep              leave the federation running and talk to it yourself
  bash scripts/demo.sh --rounds 10         train for longer
  bash scripts/demo.sh --transport quic    the same with the SuperNodes on QUIC
  bash scripts/demo.sh --stock             the same with Flower's own programs, to compare
  examples/digits/README.md                the app, and how to run it against any SuperLink
  bash scripts/test.sh                     the tests
END
    awk -v accuracy="$accuracy" 'BEGIN { exit !(accuracy > 0.9 || '"$ROUNDS"' < 3) }' ||
        fail "an accuracy above 0.9 was expected"
}

keep_running() {
    cat <<END

The federation keeps running until you press Ctrl-C here. In another terminal:
  cd $REPOSITORY && source ${VENV#"$REPOSITORY"/}/bin/activate
  flwr run examples/digits local-deployment --stream --federation-config '$FEDERATION_CONFIG'
  flwr ls examples/digits local-deployment --federation-config '$FEDERATION_CONFIG'
END
    LAST_LOG=
    wait "${DAEMONS[0]}" || true
    fail "the SuperLink ended; see $LOGS/superlink.log"
}

# -- processes -----------------------------------------------------------------------------------

# Starts a program in the background with a log of its own. In a session of its own, so that Ctrl-C
# reaches only this script, which ends everything in order.
start() {
    local name=$1
    shift
    LAST_LOG=$LOGS/$name.log
    (cd "$WORK" && exec setsid "$@") >"$LAST_LOG" 2>&1 &
    DAEMONS+=("$!")
}

# Runs a command so that a signal to this script is acted on at once.
in_step() {
    "$@" &
    STEP=$!
    local status=0
    wait "$STEP" || status=$?
    STEP=
    return "$status"
}

# Polls a condition: wait_until SECONDS WHAT COMMAND...; fails early if a daemon has ended.
wait_until() {
    local end=$((SECONDS + $1)) what=$2 pid
    shift 2
    until "$@"; do
        for pid in "${DAEMONS[@]:0:3}"; do
            kill -0 "$pid" 2>/dev/null || fail "a program ended while waiting until $what"
        done
        [[ $SECONDS -lt $end ]] || fail "gave up waiting until $what"
        sleep 0.1
    done
}

ports_open() {
    local port
    for port in "$@"; do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || return 1
    done
}

# Whether the SuperLink has logged that this many nodes joined.
nodes_online() {
    [[ $(grep -ciE 'node joined|Created node_id' "$LOGS/superlink.log") -ge $1 ]]
}

# Ends what was started, newest first, and removes the temporary folder.
clean_up() {
    local status=$? pid index
    set +e
    trap - EXIT
    trap '' INT TERM HUP
    if [[ $status -ne 0 && $status -ne 130 && $status -ne 143 && -n $LAST_LOG && -s $LAST_LOG ]]; then
        printf -- '--- last lines of %s ---\n' "$LAST_LOG" >&2
        tail -n 20 "$LAST_LOG" >&2
        echo "all logs: $LOGS/" >&2
    fi
    [[ -n $STEP ]] && kill "$STEP" 2>/dev/null
    for ((index = ${#DAEMONS[@]} - 1; index >= 0; index--)); do
        pid=${DAEMONS[index]}
        kill -TERM "$pid" 2>/dev/null && end_within 10 "$pid"
        # Whatever it left behind: it leads a process group of its own.
        kill -KILL -- "-$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    [[ -n $WORK ]] && rm -rf "$WORK"
    exit "$status"
}

end_within() {
    local end=$((SECONDS + $1))
    while kill -0 "$2" 2>/dev/null; do
        [[ $SECONDS -lt $end ]] || return 1
        sleep 0.1
    done
}

main "$@"

"""Duration of a round in which nobody computes, with two stock SuperNodes and a stock ServerApp."""

import json
import re
import statistics
import subprocess
import time
from pathlib import Path

from flwr.proto import control_pb2

from . import machine
from .processes import wait_for
from .servers import VENV_BIN, Server, environment, free_ports
from .wire import Channel, make_fab, run_status, start_run

NODES = 2
APP = Path(__file__).resolve().parents[1] / "apps" / "noop"
ROUND_S_MAX = 30
ROUND_S_PER_MB_MAX = 0.3
MARKER = re.compile(r"NOOP-ROUNDS (\[.*?\])")


def measure(kind, children, folder, rounds):
    """One run of `rounds` rounds with a fresh server and fresh nodes: {"round": {...}}."""
    with Server(kind, children, folder, tls=True, isolation="subprocess") as server:
        nodes = [_spawn_node(server, children, folder, number) for number in range(NODES)]
        try:
            with Channel(server.control, server.tls_folder) as control:
                return {"round": run(server, control, {"rounds": rounds, "nodes": NODES})}
        finally:
            for node in nodes:
                children.stop(node)


def run(server, control, config, seconds_per_mb_max=ROUND_S_PER_MB_MAX):
    """One run of the app with these overrides."""
    run_id = start_run(control, make_fab(APP), config)
    cpu, begin = machine.cpu_seconds(server.pid), time.monotonic()
    seconds_per_mb = config.get("array-bytes", 0) / 1e6 * seconds_per_mb_max
    limit = 60 + config["rounds"] * (ROUND_S_MAX + seconds_per_mb)
    what = f"{server.kind.label}: {config['rounds']} rounds"
    wait_for(lambda: run_status(control, run_id).status == "finished", limit, what, server.process, pause_s=1)
    cpu, wall = machine.cpu_seconds(server.pid) - cpu, time.monotonic() - begin
    status = run_status(control, run_id)
    logs = "".join(
        part.log_output
        for part in control.stream(
            "Control/StreamLogs", control_pb2.StreamLogsRequest(run_id=run_id), control_pb2.StreamLogsResponse
        )
    )
    found = MARKER.search(logs)
    if not found:
        raise RuntimeError(f"{what}: {status.sub_status} {status.details}\n{logs[-2000:]}")
    seconds = json.loads(found[1])
    return {
        "value": statistics.fmean(seconds),
        "seconds": seconds,
        "server_cpu_s": cpu,
        "run_wall_s": wall,
    }


def _spawn_node(server, children, folder, number):
    (port,) = free_ports(1)
    argv = [VENV_BIN / "flower-supernode", "--superlink", server.fleet]
    argv += ["--root-certificates", server.tls_folder / "ca.crt"]
    argv += ["--clientappio-api-address", f"127.0.0.1:{port}"]
    with (folder / f"supernode-{number}.log").open("wb") as log:
        return children.spawn(
            argv,
            env=environment(folder / f"home-supernode-{number}"),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

#!/usr/bin/env python3
"""A model that is larger than the memory of any daemon goes round: a SuperLink with a database and two SuperNodes,
each in a control group of its own. The apps are stand-ins that make their arrays from a seed, chunk by chunk, and
check what they get; stock apps would hold the whole model a few times over."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NODES, SEED, READY_S = 2, 20250915, 60
CHUNK_BYTES = 20 * 1024 * 1024


def main():
    """Exit status: 0 the round went well, 1 it did not."""
    options = parse()
    os.environ.update(
        FLWR_TELEMETRY_ENABLED="0", no_grpc_proxy="127.0.0.1,localhost", FEDBENCH_ROUND_S=str(options.seconds_max)
    )
    from fedbench import limits, machine, processes, servers, tls, transfer, wire

    kind = servers.Kind.ours(options.subject, options.transport).keeping()
    limit = options.limit_mb << 20
    begun = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flwr-flat-", dir=options.folder)))
        groups = [stack.enter_context(limits.Group(name, limit)) for name in ("superlink", "node0", "node1")]
        children = stack.enter_context(processes.Children())
        tls.make_certificates(folder)
        server = stack.enter_context(servers.Server(kind, children, folder, enter=groups[0].enter))
        with wire.Channel(server.control, server.tls_folder) as control:
            wire.start_run(control, wire.make_fab(transfer.APP))
        nodes = [spawn(server, children, folder, number, groups[1 + number]) for number in range(NODES)]
        common = {"seed": SEED, "chunks": options.chunks, "nodes": NODES}
        workers = [
            transfer.Worker(children, folder, role="clientapp", name=f"app{number}", address=at, tls=False, **common)
            for number, (_, at) in enumerate(nodes)
        ]
        app = transfer.Worker(
            children, folder, role="serverapp", name="app", address=server.appio, tls=False, **common
        )
        for worker in (*workers, app):
            worker.expect("ready", READY_S)
            worker.go()
        moved = sum(worker.read(options.seconds_max)["bytes"] for worker in (*workers, app))
        daemons = {"SuperLink": server.pid, "SuperNode 0": nodes[0][0].pid, "SuperNode 1": nodes[1][0].pid}
        size = options.chunks * CHUNK_BYTES
        print(f"{options.chunks} objects of 20 MiB, {size / 1e9:.1f} GB, to {NODES} nodes and back over {options.transport}")
        print(f"{moved / 1e9:.1f} GB in and out of the apps in {time.monotonic() - begun:.0f} s, limit {options.limit_mb} MiB")
        for group, (name, pid) in zip(groups, daemons.items()):
            peak = machine.memory_bytes(pid)[1]
            print(f"{name}: peak resident memory {peak / 1e6:.0f} MB, killed {group.failures()} times")
    return 0


def spawn(server, children, folder, number, group):
    """A SuperNode for apps that come by themselves, and where they reach it."""
    from fedbench.servers import environment, free_ports

    (port,) = free_ports(1)
    argv = [*server.kind.node_command, "--superlink", server.fleet, "--root-certificates", folder / "ca.crt"]
    argv += ["--isolation", "process", "--clientappio-api-address", f"127.0.0.1:{port}"]
    with (folder / f"node-{number}.log").open("wb") as log:
        process = children.spawn(
            argv, env=environment(folder / f"home-node-{number}"), cwd=folder, stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, preexec_fn=group.enter,
        )
    return process, f"127.0.0.1:{port}"


def parse():
    """The options."""
    from fedbench.flags import positive

    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--chunks", type=positive, default=300, metavar="N", help="objects of 20 MiB each (300)")
    add("--limit-mb", type=positive, default=512, metavar="MB", help="memory of each daemon, page cache included (512)")
    add("--transport", choices=("grpc", "quic"), default="quic", help="between SuperNodes and SuperLink (quic)")
    add("--folder", type=Path, help="where everything is written; takes eight times the model (the system's)")
    add("--seconds-max", type=positive, default=1800, metavar="S")
    add("--subject", type=Path, default=ROOT / "target" / "release" / "flwr-quic", help="the program to measure")
    options = parser.parse_args()
    options.subject = options.subject.resolve()
    return options


if __name__ == "__main__":
    sys.exit(main())

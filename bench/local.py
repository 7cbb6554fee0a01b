#!/usr/bin/env python3
"""Measures on the loopback: CPU time of transfers, and connections without work; `bash bench/local.sh` runs it."""

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fedbench import linkreport, machine
from fedbench.flags import add_results, positive
from fedbench.processes import Children

ROOT = Path(__file__).resolve().parents[1]
TRANSPORTS = ("tls", "grpc", "quic")
IDLE_TRANSPORTS = ("grpc", "quic")
OBJECTS, PARALLEL = 16, 4
SETTLE_S = 20
IDLE_FIGURES = (("kb_each", 1), ("core_percent", 2), ("connect_s", 1))
CPU_RATIO_MAX, KB_MAX = 2.0, 60


def main():
    """Exit status: 0 done, 1 failed or (with --check) a target was missed, 130 interrupted."""
    options = parse()
    facts = machine.facts(options.link, packages=())
    begin, ticks = time.monotonic(), machine.busy_ticks()
    results = {"cpu": [], "idle": []}
    try:
        with tempfile.TemporaryDirectory(prefix="flwr-link-") as certs:
            subprocess.run([options.link, "certs", certs], check=True)
            for repeat in range(options.repeats):
                results["cpu"].append(transfers(options, certs, repeat))
            for transport in IDLE_TRANSPORTS if options.connections else ():
                results["idle"].append(idle(options, certs, transport))
    except KeyboardInterrupt:
        print("interrupted; everything that was started has been ended", file=sys.stderr)
        return 130
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    machine.add_load(facts, ticks)
    return finish(options, facts, time.monotonic() - begin, results)


def transfers(options, certs, repeat):
    """CPU-seconds for each gigabyte, of both ends together, by transport and direction."""
    figures = {}
    first = repeat % len(TRANSPORTS)
    for transport in TRANSPORTS[first:] + TRANSPORTS[:first]:
        for direction in ("up", "down"):
            with Server(options.link, certs, transport) as server:
                size = ["--objects", OBJECTS, "--object-bytes", options.megabytes * 1_000_000 // OBJECTS]
                size += ["--parallel", PARALLEL, "--direction", direction]
                argv = [options.link, "run", *server.flags, *size]
                done = subprocess.run([str(part) for part in argv], capture_output=True, text=True, check=True)
                client = json.loads(done.stdout)
                seconds = cpu(client) + cpu(server.end())
            figures[f"{transport} {direction}"] = seconds / (client["bytes"] / 1e9)
    print("  " + ", ".join(f"{name} {value:.2f}" for name, value in sorted(figures.items())), flush=True)
    return figures


def idle(options, certs, transport):
    """What connections without work cost the server: KB each, CPU-milliseconds for each in an hour."""
    with Server(options.link, certs, transport) as server:
        before = machine.memory_bytes(server.pid)[0]
        argv = [options.link, "idle", *server.flags, "--connections", options.connections]
        client = server.spawn(argv)
        line = server.line(client)
        time.sleep(SETTLE_S)
        memory, used = machine.memory_bytes(server.pid)[0] - before, machine.cpu_seconds(server.pid)
        time.sleep(options.idle_seconds)
        used = machine.cpu_seconds(server.pid) - used
        result = {
            "transport": transport,
            "connections": line["held"],
            "connect_s": line["seconds"],
            "kb_each": memory / 1024 / line["held"],
            "core_percent": 100 * used / options.idle_seconds,
        }
    print(f"  idle: {result}", flush=True)
    return result


class Server:
    """`flwr-link serve` on a free port."""

    def __init__(self, link, certs, transport):
        self._children = Children()
        argv = [link, "serve", "--transport", transport, "--listen", "127.0.0.1:0", "--certs", certs]
        self._child = self.spawn(argv)
        self.pid = self._child.pid
        address = self.line(self._child)["address"]
        self.flags = ["--transport", transport, "--server", address, "--certs", certs]

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self._children.__exit__(*failure)

    def spawn(self, argv):
        """A child that ends with the server."""
        return self._children.spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self, child):
        """What a child says next."""
        text = child.stdout.readline()
        if not text:
            raise RuntimeError("flwr-link ended; the lines above say why")
        return json.loads(text)

    def end(self):
        """Its last words."""
        self._child.stdin.close()
        return self.line(self._child)


def cpu(end):
    """User plus system CPU-seconds that an end reports."""
    return end["usage"]["cpu_user_seconds"] + end["usage"]["cpu_system_seconds"]


def finish(options, facts, seconds, results):
    """Prints and writes; returns the status."""
    rows = targets(results)
    cells = [["transfer", "CPU-s/GB, both ends", "of plain TLS"]]
    for name in results["cpu"][0]:
        yardstick = f"tls {name.split()[1]}"
        values = [sample[name] for sample in results["cpu"]]
        ratios = [sample[name] / sample[yardstick] for sample in results["cpu"]]
        cells.append([name, spread(values), spread(ratios)])
    tables = [linkreport.markdown(cells)]
    if results["idle"]:
        cells = [["idle connections", "number", "KB each", "% of a core", "opened within s"]]
        for one in results["idle"]:
            figures = (f"{one[name]:.{digits}f}" for name, digits in IDLE_FIGURES)
            cells.append([one["transport"], str(one["connections"]), *figures])
        tables.append(linkreport.markdown(cells))
    command = shlex.join(["bench/local.sh", *sys.argv[1:]])
    whole = {"command": command, "seconds": seconds, "machine": facts, "targets": rows, "samples": results}
    return linkreport.write(options, whole, tables)


def targets(results):
    """What the figures are held against."""
    rows = []
    for direction in ("up", "down"):
        ratios = [one[f"quic {direction}"] / one[f"tls {direction}"] for one in results["cpu"]]
        row = f"{direction}: CPU time of QUIC / plain TLS"
        rows.append(linkreport.at_most(row, CPU_RATIO_MAX, linkreport.summary(ratios)["median"]))
    for one in results["idle"]:
        if one["transport"] == "quic":
            rows.append(linkreport.at_most("KB of the server for each idle QUIC connection", KB_MAX, one["kb_each"]))
    return rows


def spread(values):
    """`median [least-most]`."""
    return linkreport.spread(linkreport.summary(values), 2)


def parse():
    """The options."""
    parser = argparse.ArgumentParser(prog="local.sh", description=__doc__)
    add = parser.add_argument
    add("--repeats", type=positive, default=5, metavar="N", help="transfers of each kind (5)")
    add("--megabytes", type=positive, default=800, metavar="MB", help="moved in a transfer (800)")
    add("--connections", type=int, default=10_000, metavar="N", help="idle connections (10000); 0 measures none")
    add("--idle-seconds", type=positive, default=60, metavar="S", help="how long they are watched (60)")
    add_results(parser)
    options = parser.parse_args()
    options.link = os.environ.get("FLWR_LINK_BIN") or str(ROOT / "target" / "release" / "flwr-link")
    if not os.access(options.link, os.X_OK):
        parser.error(f"{options.link} is not there: `bash bench/local.sh` builds it")
    # A socket for each connection, at both ends of TCP.
    wanted, (_, most) = options.connections + 1024, resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < wanted:
        parser.error(f"{options.connections} connections need {wanted} open files and {most} are allowed: ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    return options


if __name__ == "__main__":
    sys.exit(main())

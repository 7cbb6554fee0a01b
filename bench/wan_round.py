"""Rounds of whole federations over the emulated link: the SuperLink on one side, two SuperNodes on the other.

Each SuperNode gets the model and answers with as much; apps are stock and do not compute. The same with our
programs over QUIC and over gRPC, and with stock Flower throughout. See bench/README.md.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from fedbench import rounds
from fedbench.flags import names, positive, seconds
from fedbench.processes import Children
from fedbench.servers import Kind, Server, environment
from fedbench.tls import make_certificates
from fedbench.wan import Link, Unable
from fedbench.wire import Channel

ROOT = Path(__file__).resolve().parents[1]
NODES = 2
CLIENTAPPIO_PORT = 9494
CONTESTANTS = ("quic", "grpc-cubic", "grpc-bbr", "stock-cubic", "stock-bbr")


def main():
    """Measures, or is one side of a measurement."""
    options = parse()
    if options.inside:
        print(json.dumps(inside(options)))
        return 0
    results = {}
    for seed in range(1, options.seeds + 1):
        for contestant in options.contestants:
            try:
                result = measure(options, contestant, seed)
            except Unable as error:
                print(error, file=sys.stderr)
                return 77
            results.setdefault(contestant, []).append(result)
            print(f"{contestant:12} seed {seed}: {result['round_s']:.1f} s", file=sys.stderr)
    report(options, results)
    if options.json:
        options.json.write_text(json.dumps({"argv": sys.argv[1:], "results": results}, indent=1) + "\n")
    return 0


def measure(options, contestant, seed):
    """One round over a link of its own."""
    flags = ["--tcp-congestion", "bbr" if contestant.endswith("bbr") else "cubic"]
    with Link(options.profile, seed, options.emulator, flags) as link:
        argv = [sys.executable, __file__, "--inside", contestant, "--subject", options.subject]
        argv += ["--megabytes", options.megabytes, "--seconds-max", options.seconds_max]
        argv += ["--far", link.namespaces[1], "--host", link.addresses[0]]
        timers = [threading.Timer(at, move_nodes, (link, number)) for number, at in enumerate(options.readdress)]
        for timer in timers:
            timer.start()
        done = subprocess.run(link.command(0, argv), stdout=subprocess.PIPE, text=True, check=False)
        for timer in timers:
            timer.cancel()
        statistics_ = link.close()
    if done.returncode != 0:
        raise RuntimeError(f"{contestant} failed with {done.returncode}")
    result = json.loads(done.stdout)
    return {**result, "seed": seed, "rate_mbit": link.ready["profile"]["rate_mbit"], "link": statistics_}


def move_nodes(link, number):
    """Takes the address of the nodes' side away and gives it another."""
    host, _, last = link.addresses[1].rpartition(".")
    link.send({"readdress": {"side": 1, "address": f"{host}.{int(last) + 1 + number}"}})


def inside(options):
    """Within the SuperLink's namespace: one round."""
    kind = {
        "quic": Kind.ours(options.subject, "quic", "quic"),
        "grpc": Kind.ours(options.subject, "grpc", "grpc"),
        "stock": Kind.stock(),
    }[options.inside.partition("-")[0]]
    with tempfile.TemporaryDirectory(prefix="flwr-wan-") as name, Children() as children:
        folder = Path(name)
        make_certificates(folder)
        with Server(kind, children, folder, isolation="subprocess", host=options.host) as server:
            nodes = [spawn(server, children, folder, number, options.far) for number in range(NODES)]
            try:
                with Channel(server.control, folder) as control:
                    config = {"rounds": 1, "nodes": NODES, "array-bytes": options.megabytes * 1_000_000}
                    config["timeout"] = options.seconds_max
                    limit = options.seconds_max / options.megabytes
                    sample = rounds.run(server, control, config, limit)
            finally:
                for node in nodes:
                    children.stop(node)
    return {"round_s": sample["seconds"][0], "megabytes": options.megabytes, "nodes": NODES}


def spawn(server, children, folder, number, namespace):
    """A SuperNode on the other side."""
    argv = ["ip", "netns", "exec", namespace, *server.kind.node_command, "--superlink", server.fleet]
    argv += ["--root-certificates", folder / "ca.crt"]
    argv += ["--clientappio-api-address", f"127.0.0.1:{CLIENTAPPIO_PORT + number}"]
    with (folder / f"node-{number}.log").open("wb") as log:
        env = environment(folder / f"home-{number}")
        return children.spawn(argv, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def report(options, results):
    """What a round took, and what the link allows for: the model to every node and back."""
    rate = next(iter(results.values()))[0]["rate_mbit"]
    floor = 2 * NODES * options.megabytes * 8 / rate + 1
    print(f"{options.profile}: {options.megabytes} MB to each of {NODES} nodes and back; the link allows for {floor:.1f} s")
    for contestant, samples in results.items():
        seconds = [sample["round_s"] for sample in samples]
        middle = statistics.median(seconds)
        spread = f"[{min(seconds):.1f}-{max(seconds):.1f}]"
        useful = NODES * options.megabytes * 1_000_000
        sent = [
            statistics.median(sample["link"]["directions"][way]["bytes_in"] / useful for sample in samples)
            for way in ("forward", "backward")
        ]
        line = f"{contestant:12} {middle:7.1f} s {spread:15} {middle / floor:5.2f} x"
        print(f"{line}   bytes sent: {sent[0]:.3f} x down, {sent[1]:.3f} x up")


def parse():
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--profile", default="wan-50-0.5")
    add("--megabytes", type=positive, default=100, metavar="MB", help="size of the model (100)")
    add("--seeds", type=positive, default=3, metavar="N", help="links for each contestant (3)")
    add("--contestants", type=names, default=list(CONTESTANTS), metavar="LIST")
    add("--readdress", type=seconds, default=[], metavar="S,...",
        help="give the nodes another address so many seconds after the start (never)")
    add("--seconds-max", type=positive, default=1200, metavar="S", help="give up on a round after about as long")
    add("--subject", type=Path, default=ROOT / "target" / "release" / "flwr-quic")
    add("--emulator", type=Path, default=ROOT / "target" / "release" / "flwr-emu")
    add("--json", type=Path, metavar="FILE")
    add("--inside", help=argparse.SUPPRESS)
    add("--far", help=argparse.SUPPRESS)
    add("--host", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

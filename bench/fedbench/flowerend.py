"""An end of a transfer with stock Flower: a `flower-superlink`, or a node that uses Flower's stubs and gRPC for Python.

Takes the flags of `flwr-link serve` and `flwr-link run` that make sense here and prints the same JSON. Objects are
chunks of 20 MiB, as many at once as stock programs move. The node gets a message and answers it; upwards the answer
is large, downwards the message is.
"""

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import grpc  # noqa: E402
from flwr.proto import appio_pb2, fleet_pb2, message_pb2, node_pb2  # noqa: E402

from fedbench import machine  # noqa: E402
from fedbench.objects import CHUNK_BYTES, Content, Payload  # noqa: E402
from fedbench.processes import Children  # noqa: E402
from fedbench.servers import Kind, Server  # noqa: E402
from fedbench.transfer import APP, SEED  # noqa: E402
from fedbench.wire import Channel, Node, ServerApp, make_fab, start_run  # noqa: E402
from fedbench.worker import ROUND_S, Peer  # noqa: E402

NODE_S = 60
POLL_S = 0.1


def serve(options):
    """A SuperLink, and a ServerApp beside it that sends the message; until stdin closes."""
    with tempfile.TemporaryDirectory(prefix="flwr-link-") as name, Children() as children:
        folder = certificates(options.certs, Path(name))
        with Server(Kind.stock(), children, folder, host=options.listen.partition(":")[0]) as server:
            with Channel(server.control, folder) as control:
                start_run(control, make_fab(APP))
            say({"ready": True, "transport": "flower", "address": server.fleet})
            if options.objects:
                with Channel(server.appio) as channel:
                    send(channel, chunks(options) if options.direction == "down" else 0)
            cpu = machine.cpu_seconds(server.pid)
            sys.stdin.read()
            cpu = machine.cpu_seconds(server.pid) - cpu
            usage = {"cpu_user_seconds": cpu, "cpu_system_seconds": 0.0}
            usage["rss_peak_bytes"] = machine.memory_bytes(server.pid)[1]
            say({"final": True, "usage": usage, "kernel": kernel()})


def send(channel, count):
    """Sends the node, once there is one, a message of so many chunks."""
    app = ServerApp(channel)

    def call(name, request):
        return channel.method(f"ServerAppIo/{name}")(request, timeout=ROUND_S)

    content = Content.build(Payload(SEED, "app"), count)
    peer = Peer("ServerAppIo", call, node_pb2.Node(node_id=1), app.run_id)
    message, tree = content.message(app.run_id, 1, app.node_ids(1, NODE_S)[0])
    push = appio_pb2.PushAppMessagesRequest(
        messages_list=[message], run_id=app.run_id, message_object_trees=[tree]
    )
    pushed = appio_pb2.PushAppMessagesResponse.FromString(call("PushMessages", push.SerializeToString()))
    peer.push(content, pushed.objects_to_push)


def run(options):
    """A node: one connection, one transfer."""
    content = Content.build(Payload(SEED, "node"), chunks(options)) if options.direction == "up" else None
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="flwr-link-") as name:
        channel = Channel(options.server, certificates(options.certs, Path(name)))
    with channel:
        node = Node(channel)
        first_answer_s = time.monotonic() - start
        node.heartbeat()
        work, moved = prepare(options, node, content) if options.objects else (lambda: None, lambda: 0)
        before, begin = cpu_times(), time.monotonic()
        capped = limited(work, channel, options.seconds_max)
        seconds = time.monotonic() - begin
        used = [now - then for now, then in zip(cpu_times(), before)]
    usage = {"cpu_user_seconds": used[0], "cpu_system_seconds": used[1]}
    usage["rss_peak_bytes"] = machine.memory_bytes(os.getpid())[1]
    say(
        {
            "transport": "flower",
            "ttfb_ms": first_answer_s * 1e3,
            "seconds": seconds,
            "bytes": moved(),
            "goodput_mbit": moved() * 8 / 1e6 / seconds,
            "capped": capped,
            "usage": usage,
            "control": None,
            "kernel": kernel(),
        }
    )


def prepare(options, node, content):
    """Gets the message, up to where objects are moved: the rest of the work, and how many bytes it has moved."""
    pull = fleet_pb2.PullMessagesRequest(node=node.node)
    got = wait(lambda: node.call("PullMessages", pull, fleet_pb2.PullMessagesResponse), lambda got: got.messages_list)
    message, tree = got.messages_list[0], got.message_object_trees[0]
    peer = Peer("Fleet", node.call_raw, node.node, message.metadata.run_id)
    # It is pushed last: then all others are there.
    ask = message_pb2.PullObjectRequest(node=node.node, run_id=peer.run_id, object_id=tree.object_id)
    wait(lambda: node.call("PullObject", ask, message_pb2.PullObjectResponse), lambda got: got.object_available)
    if options.direction == "down":
        return lambda: peer.pull(message, tree), lambda: peer.bytes_pulled
    reply, tree = content.message(peer.run_id, node.id, 1, message.metadata)
    push = fleet_pb2.PushMessagesRequest(node=node.node, messages_list=[reply], message_object_trees=[tree])
    wanted = node.call("PushMessages", push, fleet_pb2.PushMessagesResponse).objects_to_push
    return lambda: peer.push(content, wanted), lambda: peer.bytes_pushed


def wait(ask, is_there):
    """Asks until the answer is what is waited for."""
    deadline = time.monotonic() + NODE_S
    while not is_there(answer := ask()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the server has nothing for this node after {NODE_S} s")
        time.sleep(POLL_S)
    return answer


def limited(work, channel, seconds_max):
    """Whether the work had to be given up: then the connection is closed below it."""
    over = threading.Event()

    def give_up():
        over.set()
        channel.__exit__()

    timer = threading.Timer(seconds_max, give_up)
    timer.daemon = True
    timer.start()
    try:
        work()
    except (grpc.RpcError, ValueError):
        if not over.is_set():
            raise
    finally:
        timer.cancel()
    return over.is_set()


def chunks(options):
    """How many chunks are about as many bytes as were asked for."""
    return max(1, round(options.objects * options.object_bytes / CHUNK_BYTES))


def certificates(made, folder):
    """What `flwr-link certs` made, under the names that servers here expect."""
    for name, expected in (("ca.crt", "ca.crt"), ("server.pem", "server.crt"), ("server.key", "server.key")):
        shutil.copy(Path(made, name), folder / expected)
    return folder


def cpu_times():
    """User and system CPU-seconds of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime, usage.ru_stime


def kernel():
    """What this network namespace is like."""
    return {"tcp_congestion": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()}


def say(value):
    """One line of JSON."""
    print(json.dumps(value), flush=True)


def main():
    """Plays the end that is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ends = parser.add_subparsers(required=True)
    for play, where in ((serve, "--listen"), (run, "--server")):
        end = ends.add_parser(play.__name__)
        end.set_defaults(play=play)
        end.add_argument(where, required=True, metavar="ADDRESS")
        end.add_argument("--certs", required=True, metavar="DIRECTORY")
        end.add_argument("--direction", choices=("up", "down"), required=True)
        end.add_argument("--objects", type=int, default=8)
        end.add_argument("--object-bytes", type=int, default=10 << 20)
        end.add_argument("--parallel", help="is what stock programs choose")
        end.add_argument("--seconds-max", type=float, default=ROUND_S)
    options = parser.parse_args()
    options.play(options)


if __name__ == "__main__":
    main()

"""One peer of the transfer round in a process of its own: `worker.py CONFIG-JSON`.

Protocol with the parent, one JSON value a line: the peer says "ready", waits for a line on
its standard input, plays its part, says what it did, and lives on until its input closes.
Calls come in the order of the stock programs, with the stock number of transfers in flight.
"""

import concurrent.futures
import hashlib
import json
import os
import random
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flwr.proto import appio_pb2, fab_pb2, fleet_pb2, message_pb2, node_pb2, run_pb2  # noqa: E402

from fedbench.objects import Content, Payload, push_request, walk  # noqa: E402
from fedbench.wire import Channel, ClientApp, Node, ServerApp  # noqa: E402

IN_FLIGHT = min(8, os.cpu_count() or 1)
"""Object transfers at a time, as stock programs choose it."""

EMPTY_PULL_PAUSE_S = 0.5
"""Pause after an empty PullMessages (3 s in stock programs; shorter here, to save time)."""

ROUND_S = float(os.environ.get("FEDBENCH_ROUND_S", "240"))
"""Nothing takes longer than this, or the peer gives up."""


class Peer:
    """Moves the objects of messages over one service and writes down when."""

    def __init__(self, service, call, node, run_id=None):
        self.service, self.call, self.node, self.run_id = service, call, node, run_id
        self.events, self.bytes_pushed, self.bytes_pulled = [], 0, 0
        self._lock = threading.Lock()
        self._deadline = time.monotonic() + ROUND_S

    def push(self, content, wanted):
        """Pushes the objects that the server asks for, children first."""
        wanted = set(wanted)
        self._parallel(lambda one: self._push_one(content, one), [one for one in content.parts if one in wanted])

    def pull(self, message, tree):
        """Pulls every object of a message, checks each, and confirms the message."""
        self._parallel(self._pull_one, walk(tree))
        self.events.append(["confirm", time.monotonic(), message.metadata.message_id, 0])
        request = message_pb2.ConfirmMessageReceivedRequest(
            node=self.node, run_id=self.run_id, message_object_id=message.metadata.message_id
        )
        self.call("ConfirmMessageReceived", request.SerializeToString())

    def announce(self, message_id, tree):
        """Writes down which objects a message keeps alive."""
        self.events.append(["message", time.monotonic(), message_id, walk(tree)])

    def report(self):
        """What the parent wants to know."""
        return {"events": self.events, "bytes": self.bytes_pushed + self.bytes_pulled}

    def expired(self):
        """Fails once the round takes too long."""
        if time.monotonic() > self._deadline:
            raise RuntimeError(f"the round was not over after {ROUND_S} s")

    def _parallel(self, work, items):
        with concurrent.futures.ThreadPoolExecutor(IN_FLIGHT) as pool:
            for future in [pool.submit(work, item) for item in items]:
                future.result()

    def _push_one(self, content, object_id):
        request = push_request(self.node, self.run_id, object_id, content.parts[object_id])
        response = message_pb2.PushObjectResponse.FromString(self.call("PushObject", request))
        if not response.stored:
            raise RuntimeError(f"object {object_id} was not stored")
        with self._lock:
            self.bytes_pushed += content.size(object_id)
            self.events.append(["stored", time.monotonic(), object_id, content.size(object_id)])

    def _pull_one(self, object_id):
        request = message_pb2.PullObjectRequest(node=self.node, run_id=self.run_id, object_id=object_id)
        request, pause = request.SerializeToString(), 1.0
        while True:
            response = message_pb2.PullObjectResponse.FromString(self.call("PullObject", request))
            if not response.object_found:
                raise RuntimeError(f"object {object_id} is unknown to the server")
            if response.object_available:
                break
            self.expired()
            time.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(2 * pause, 10)
        if hashlib.sha256(response.object_content).hexdigest() != object_id:
            raise RuntimeError(f"object {object_id} came back changed")
        with self._lock:
            self.bytes_pulled += len(response.object_content)


def play_node(config, channel):
    """A SuperNode: waits for the model, pulls it, answers with arrays of its own."""
    payload = Payload(config["seed"], config["name"])
    content = Content.build(payload, config["chunks"])
    node = Node(channel)
    node.heartbeat()
    threading.Thread(target=_beat, args=(node,), daemon=True).start()
    say("ready")
    sys.stdin.readline()
    peer = Peer("Fleet", node.call_raw, node.node)
    pull = fleet_pb2.PullMessagesRequest(node=node.node)
    while not (got := node.call("PullMessages", pull, fleet_pb2.PullMessagesResponse)).messages_list:
        peer.expired()
        time.sleep(EMPTY_PULL_PAUSE_S)
    message, tree = got.messages_list[0], got.message_object_trees[0]
    peer.run_id = message.metadata.run_id
    run = node.call("GetRun", run_pb2.GetRunRequest(node=node.node, run_id=peer.run_id), run_pb2.GetRunResponse).run
    fab = fab_pb2.GetFabRequest(node=node.node, run_id=peer.run_id, hash_str=run.fab_hash)
    node.call("GetFab", fab, fab_pb2.GetFabResponse)
    peer.pull(message, tree)
    reply, tree = content.message(peer.run_id, node.id, 1, message.metadata)
    push = fleet_pb2.PushMessagesRequest(node=node.node, messages_list=[reply], message_object_trees=[tree])
    peer.announce(reply.metadata.message_id, tree)
    wanted = node.call("PushMessages", push, fleet_pb2.PushMessagesResponse).objects_to_push
    peer.push(content, wanted)
    return peer.report()


def play_serverapp(config, channel):
    """A ServerApp: sends one model to all nodes and waits for all replies."""
    payload = Payload(config["seed"], config["name"])
    content = Content.build(payload, config["chunks"])
    app = ServerApp(channel)
    nodes = app.node_ids(config["nodes"])
    say("ready")
    sys.stdin.readline()

    def call(name, request):
        return channel.method(f"ServerAppIo/{name}")(request, timeout=ROUND_S)

    peer = Peer("ServerAppIo", call, node_pb2.Node(node_id=1), app.run_id)
    messages, trees = zip(*(content.message(app.run_id, 1, node) for node in nodes))
    for message, tree in zip(messages, trees):
        peer.announce(message.metadata.message_id, tree)
    push = appio_pb2.PushAppMessagesRequest(messages_list=messages, run_id=app.run_id, message_object_trees=trees)
    pushed = appio_pb2.PushAppMessagesResponse.FromString(call("PushMessages", push.SerializeToString()))
    peer.push(content, pushed.objects_to_push)
    waiting = set(pushed.message_ids)
    while waiting:
        pull = appio_pb2.PullAppMessagesRequest(message_ids=sorted(waiting), run_id=app.run_id)
        got = appio_pb2.PullAppMessagesResponse.FromString(call("PullMessages", pull.SerializeToString()))
        for reply, tree in zip(got.messages_list, got.message_object_trees):
            if reply.HasField("error"):
                raise RuntimeError(f"instead of a reply: {reply.error.reason}")
            peer.pull(reply, tree)
            waiting.remove(reply.metadata.reply_to_message_id)
        if waiting:
            peer.expired()
            time.sleep(EMPTY_PULL_PAUSE_S)
    return peer.report()


def play_clientapp(config, channel):
    """A ClientApp: pulls the model from its SuperNode, answers with arrays of its own."""
    content = Content.build(Payload(config["seed"], config["name"]), config["chunks"])
    say("ready")
    sys.stdin.readline()
    app = ClientApp(channel, ROUND_S)

    def call(name, request):
        return channel.method(f"ClientAppIo/{name}")(request, timeout=ROUND_S)

    message, tree = app.message()
    peer = Peer("ClientAppIo", call, node_pb2.Node(node_id=message.metadata.dst_node_id), app.run_id)
    peer.pull(message, tree)
    reply, tree = content.message(app.run_id, message.metadata.dst_node_id, 1, message.metadata)
    peer.announce(reply.metadata.message_id, tree)
    peer.push(content, app.answer(reply, tree))
    app.finish()
    return peer.report()


def say(value):
    """One line to the parent."""
    print(json.dumps(value), flush=True)


def _beat(node):
    while True:
        time.sleep(20)
        node.heartbeat()


def main():
    """Plays the role that the configuration names."""
    config = json.loads(sys.argv[1])
    folder = Path(config["tls_folder"]) if config["tls_folder"] else None
    role = {"node": play_node, "serverapp": play_serverapp, "clientapp": play_clientapp}[config["role"]]
    with Channel(config["address"], folder) as channel:
        say(role(config, channel))
        sys.stdin.readline()


if __name__ == "__main__":
    main()

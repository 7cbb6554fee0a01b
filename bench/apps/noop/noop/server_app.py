"""Sends fresh arrays to every node, waits for all replies, prints how long each round took."""

import json
import time

import numpy as np
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds of the run; a wrong or missing reply ends it."""
    config = context.run_config
    nodes = wait_for_nodes(grid, int(config["nodes"]))
    random = np.random.default_rng(1)
    seconds = []
    for number in range(int(config["rounds"])):
        array = random.integers(0, 256, int(config["array-bytes"]), dtype=np.uint8)
        content = RecordDict({"arrays": ArrayRecord([array])})
        begin = time.perf_counter()
        messages = [
            Message(content=content, dst_node_id=node, message_type="train", group_id=str(number))
            for node in nodes
        ]
        replies = list(grid.send_and_receive(messages, timeout=float(config["timeout"])))
        seconds.append(round(time.perf_counter() - begin, 4))
        check(replies, nodes, array)
    print("NOOP-ROUNDS " + json.dumps(seconds), flush=True)


def wait_for_nodes(grid: Grid, count: int) -> list[int]:
    """The ids of the nodes, once `count` are online."""
    deadline = time.monotonic() + 60
    while len(nodes := list(grid.get_node_ids())) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{len(nodes)} of {count} nodes are online")
        time.sleep(0.2)
    return nodes


def check(replies: list[Message], nodes: list[int], sent: np.ndarray) -> None:
    """Every node has answered, with the right bytes: those it got, with the bits of its id flipped."""
    if sorted(reply.metadata.src_node_id for reply in replies) != sorted(nodes):
        raise RuntimeError("not every node has answered")
    for reply in replies:
        if reply.has_error():
            raise RuntimeError(f"error reply: {reply.error.reason}")
        (array,) = reply.content["arrays"].to_numpy_ndarrays()
        mask = np.uint8(reply.metadata.src_node_id % 255 + 1)
        if not np.array_equal(array, sent ^ mask):
            raise RuntimeError("a reply has other bytes than it should")

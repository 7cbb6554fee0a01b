"""Sends every node the same arrays each round and logs what comes back as events."""

from __future__ import annotations

import json
import os
import time

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from probe.common import checksum, emit, make_arrays, size

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """The rounds, then the end that was asked for."""
    config = context.run_config
    emit("start", pid=os.getpid(), run_id=context.run_id, run_config=dict(config))
    if config["say"]:
        print(config["say"])
    nodes = _wait_for_nodes(grid, int(config["nodes"]))
    emit("nodes", nodes=nodes)
    for number in range(1, int(config["rounds"]) + 1):
        _round(grid, context, number, nodes)
    emit("rounds-done")
    if config["server"] == "raise":
        raise RuntimeError("the probe was told to crash")
    while config["server"] == "wait":
        time.sleep(0.2)
    emit("end")


def _wait_for_nodes(grid: Grid, count: int) -> list[int]:
    while True:
        nodes = sorted(grid.get_node_ids())
        if len(nodes) >= count:
            return nodes
        time.sleep(0.2)


def _round(grid: Grid, context: Context, number: int, nodes: list[int]) -> None:
    config = context.run_config
    arrays = make_arrays(int(config["arrays"]), int(config["array-bytes"]), number)
    sent = checksum(arrays)
    kind = "train" if number % 2 else "evaluate"
    messages = [
        Message(RecordDict({"arrays": arrays}), dst_node_id=node, message_type=kind, group_id=str(number))
        for node in nodes
    ]
    emit("round", round=number, checksum=sent, bytes=size(arrays), type=kind)
    before = time.monotonic()
    replies = list(grid.send_and_receive(messages, timeout=float(config["timeout"])))
    seconds = time.monotonic() - before
    for reply in replies:
        emit("reply", round=number, **_describe(reply))
    emit("round-done", round=number, replies=len(replies), seconds=seconds)


def _describe(reply: Message) -> dict:
    about = {"node": reply.metadata.src_node_id, "group": reply.metadata.group_id}
    if reply.has_error():
        return {**about, "code": reply.error.code, "reason": reply.error.reason}
    saw = dict(reply.content["saw"])
    for name in ("node_config", "run_config"):
        saw[name] = json.loads(saw[name])
    return {**about, "code": None, "saw": saw, "checksum": checksum(reply.content["arrays"])}

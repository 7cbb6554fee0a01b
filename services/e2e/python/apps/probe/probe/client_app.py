"""Echoes what it is sent, with a description of what it sees; or misbehaves as told."""

from __future__ import annotations

import json
import os
import time

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from probe.common import checksum, emit, size

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Echo the arrays with a fresh description."""
    return _answer(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """As train, so that the counter counts both."""
    return _answer(message, context)


def _answer(message: Message, context: Context) -> Message:
    emit("client", pid=os.getpid(), node=context.node_id, node_config=dict(context.node_config))
    _misbehave(context)
    arrays = message.content["arrays"]
    back = _first(arrays, int(context.run_config["reply-arrays"]))
    calls = _count(context)
    saw = ConfigRecord(
        {
            "checksum": checksum(arrays),
            "bytes": size(arrays),
            "returned": checksum(back),
            "calls": calls,
            "type": message.metadata.message_type,
            "group": message.metadata.group_id,
            "node_config": json.dumps(dict(context.node_config)),
            "run_config": json.dumps(dict(context.run_config)),
        }
    )
    return Message(RecordDict({"arrays": back, "saw": saw}), reply_to=message)


def _first(arrays: ArrayRecord, count: int) -> ArrayRecord:
    names = list(arrays)
    return ArrayRecord({name: arrays[name] for name in names[: len(names) if count < 0 else count]})


def _misbehave(context: Context) -> None:
    only = int(context.run_config["client-partition"])
    if only not in (-1, context.node_config.get("partition-id")):
        return
    what = context.run_config["client"]
    if what == "raise":
        raise ValueError("the probe was told to raise")
    if what == "sleep":
        time.sleep(float(context.run_config["client-seconds"]))


def _count(context: Context) -> int:
    """How often this node was called in this run, kept in the context's state."""
    record = context.state.get("calls", MetricRecord({"n": 0}))
    calls = int(record["n"]) + 1
    context.state["calls"] = MetricRecord({"n": calls})
    return calls

"""Calls the server holds, and how promptly it lets go of them.

A release is timed from the moment the releasing call was answered to the moment the held call's
answer arrived. The machine may be busy, so one try may take up to a second, but the median of the
tries must stay within the 50 ms of the specification.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import grpc
from flwr.proto import appio_pb2
from wire import AppIo, Node, Packed

from harness import wait_for

PROMPT = 0.050
"""Median of a prompt release in seconds."""

SLOWEST = 1.0
"""No single release may take longer, in seconds."""

TRIES = 7


class Held:
    """A call that is on its way, and when its answer arrived."""

    def __init__(self, future: grpc.Future) -> None:
        self.future = future
        self.arrived: float | None = None
        future.add_done_callback(self._arrive)

    def _arrive(self, _future: grpc.Future) -> None:
        self.arrived = time.monotonic()

    def stays(self, seconds: float = 0.15) -> Held:
        """Require that the server has not answered for a while."""
        time.sleep(seconds)
        assert not self.future.done(), f"the call was not held: {self.future}"
        return self

    def answer(self, timeout: float = 5.0) -> Any:
        """Wait for the answer; raises grpc.RpcError."""
        return self.future.result(timeout=timeout)

    def took(self, since: float) -> float:
        """Seconds from `since` to the arrival of the answer."""
        wait_for(lambda: self.arrived is not None, 5.0, "the answer", interval=0.001)
        assert self.arrived is not None
        return self.arrived - since


def prompt(times: list[float]) -> None:
    """Require a prompt median and no try above the bound."""
    shown = [f"{seconds * 1000:.1f}" for seconds in times]
    assert statistics.median(times) <= PROMPT and max(times) <= SLOWEST, f"ms: {shown}"


def hold_pull(node: Node) -> Held:
    """Start Fleet.PullMessages."""
    return Held(node.pull_future())


def hold_replies(appio: AppIo, run_id: int, *sent: Packed) -> Held:
    """Start ServerAppIo.PullMessages."""
    return Held(appio.pull_future(run_id, [packed.id for packed in sent]))


def hold_apps(appio: AppIo) -> Held:
    """Start ListAppsToLaunch."""
    request = appio_pb2.ListAppsToLaunchRequest()
    return Held(appio.future("ListAppsToLaunch", request, timeout=40.0))


def timed(call: Callable[[], Any]) -> list[float]:
    """Run `call` several times and return how long each took."""
    call()
    times = []
    for _ in range(TRIES):
        began = time.monotonic()
        call()
        times.append(time.monotonic() - began)
    return times

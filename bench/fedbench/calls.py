"""Server CPU per empty Fleet.PullMessages and per Fleet.SendNodeHeartbeat."""

import time

from flwr.proto import fleet_pb2, heartbeat_pb2

from . import machine
from .servers import Server
from .wire import HEARTBEAT_S, Channel, Node

NODES = 4
WARM_UP_CALLS = 100
IDLE_S = 1.0

METHODS = {"pull": "PullMessages", "heartbeat": "SendNodeHeartbeat"}
KEPT = {f"{figure}-database": method for figure, method in METHODS.items()}
"""The same with the state in a database."""


def measure(kind, children, folder, wanted, calls, tls):
    """One sample of each wanted figure with a fresh server: {figure: {...}}."""
    with Server(kind, children, folder, tls=tls, hold=False) as server:
        channels = [Channel(server.fleet, server.tls_folder) for _ in range(NODES)]
        try:
            nodes = [Node(channel) for channel in channels]
            return {figure: _sample(server.pid, nodes, figure, calls) for figure in wanted}
        finally:
            for channel in channels:
                channel.__exit__()


def _sample(pid, nodes, figure, calls):
    """Calls go out one after the other, the nodes taking turns."""
    method, requests = (METHODS | KEPT)[figure], [_request(node, figure) for node in nodes]
    _check(figure, nodes[0].call_raw(method, requests[0]))
    for number in range(WARM_UP_CALLS):
        nodes[number % len(nodes)].call_raw(method, requests[number % len(nodes)])
    begin, cpu = time.monotonic(), machine.cpu_seconds(pid)
    for number in range(calls):
        nodes[number % len(nodes)].call_raw(method, requests[number % len(nodes)])
    cpu, wall = machine.cpu_seconds(pid) - cpu, time.monotonic() - begin
    idle = machine.cpu_seconds(pid)
    time.sleep(IDLE_S)
    idle = (machine.cpu_seconds(pid) - idle) / IDLE_S
    return {
        "value": cpu / calls * 1e3,
        "calls": calls,
        "wall_s": wall,
        "cpu_s": cpu,
        "idle_cpu_ms_per_s": idle * 1e3,
        "idle_cpu_ms_in_same_time": idle * wall * 1e3,
    }


def _request(node, figure):
    if figure.startswith("pull"):
        return fleet_pb2.PullMessagesRequest(node=node.node).SerializeToString()
    request = heartbeat_pb2.SendNodeHeartbeatRequest(node=node.node, heartbeat_interval=HEARTBEAT_S)
    return request.SerializeToString()


def _check(figure, raw):
    """The server must really have answered as Flower does."""
    if figure.startswith("pull") and fleet_pb2.PullMessagesResponse.FromString(raw).messages_list:
        raise RuntimeError("PullMessages was not empty")
    if figure.startswith("heartbeat") and not heartbeat_pb2.SendNodeHeartbeatResponse.FromString(raw).success:
        raise RuntimeError("the heartbeat was refused")

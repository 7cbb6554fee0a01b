"""Transfers over one emulated link at the same time, each over its own connection, and when their bytes arrived."""

import time

from . import linkrun
from .machine import load_average
from .processes import Children
from .wan import Link

START_APART_S = 1
OBJECTS, OBJECT_BYTES = 1000, 10_000_000


def transfer(programs, profile, transports, seed, seconds, link_flags=(), meanwhile=None, direction="up"):
    """Moves objects with all of `transports` for so many seconds; they start one after the other, START_APART_S apart.

    `meanwhile(link)` is called once all have started; what it returns is in `meanwhile`. Of `flows`, each holds what
    its two ends say. TCP has its congestion control from its own socket: only `tls` can do that.
    """
    load = load_average()
    flags = ["--direction", direction, "--objects", OBJECTS, "--object-bytes", OBJECT_BYTES, "--seconds-max", seconds]
    flags += ["--arrivals"] if direction == "down" else []
    with Link(profile, seed, programs.emulator, link_flags) as link, Children() as children:
        servers = [
            linkrun.Server(children, programs, link, transport, ["--arrivals"], linkrun.PORT + number)
            for number, transport in enumerate(transports)
        ]
        clients = []
        for transport, server in zip(transports, servers):
            if clients:
                time.sleep(START_APART_S)
            chosen = [*flags, *socket_flags(transport)]
            clients.append(linkrun.Client(children, programs, link, transport, server.address, chosen))
        happened = meanwhile(link) if meanwhile else None
        reports = [client.end() for client in clients]
        ended_s = time.monotonic()
        served = [server.end() for server in servers]
        final = link.close()
        asked = link.ready["profile"]
    found = linkrun.faults(final, asked["rtt_ms"])
    for transport, report in zip(transports, reports):
        if transport.program == "tls" and report["tcp_congestion"] != transport.congestion:
            found.append(f"TCP runs {report['tcp_congestion']}")
    return {
        "profile": profile,
        "seed": seed,
        "asked": asked,
        "load_average": load,
        "faults": found,
        "flows": [
            {"transport": transport.label, "client": client, "server": server}
            for transport, client, server in zip(transports, reports, served)
        ],
        "ended_s": ended_s,
        "meanwhile": happened,
        "link_final": final,
    }


def socket_flags(transport):
    """Raises ValueError for what cannot share a namespace with another congestion control."""
    if transport.program == "quic":
        return []
    if transport.program == "tls":
        return ["--tcp-congestion", transport.congestion]
    raise ValueError(f"{transport.label} cannot be beside others: use quic, quic-NAME or tls-NAME")


def first_arrival(arrivals):
    """Seconds of the monotonic clock; None if nothing has arrived."""
    for number, arrived in enumerate(arrivals["bytes"]):
        if arrived:
            return arrivals["begin_s"] + number * arrivals["bucket_s"]
    return None


def bytes_between(arrivals, begin_s, end_s):
    """What arrived in that time; of a bucket on its edge, the share of time that is within."""
    width, total = arrivals["bucket_s"], 0.0
    for number, arrived in enumerate(arrivals["bytes"]):
        since = arrivals["begin_s"] + number * width
        within = min(since + width, end_s) - max(since, begin_s)
        total += arrived * max(within, 0) / width
    return total

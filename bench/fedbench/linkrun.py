"""One transfer over the emulated link: two fresh processes of `flwr-link`, and what all three programs say about it."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .machine import load_average
from .processes import Children
from .wan import Link

PORT = 7777
DEFAULT_WINDOWS = "default-"
FLOWER_END = Path(__file__).with_name("flowerend.py")
MTU_BYTES = 1500
LATENESS_US = 300
LATENESS_SHARE = 0.05
REPEATS_MAX = 3
OBJECTS = 8
PARALLEL = 4
SLACK_S = 30
DATA_DIRECTION = {"up": "forward", "down": "backward"}
PAYLOAD_SHARE = {"quic": 0.955, "grpc": 0.963, "tls": 0.963, "flower": 0.963}
"""Of the bytes of full IP packets those of objects: what a transfer that was cut off has moved is derived from it."""


class Failed(Exception):
    """An end gave up or said nothing."""


@dataclass(frozen=True)
class Programs:
    """What is run, and how."""

    emulator: str
    link: str
    certs: str
    priority: bool = True
    flower_python: str = None
    """The Python of an environment with stock Flower."""

    def end(self, transport, verb, *argv):
        """The argv of an end."""
        real_time = ["chrt", "-f", "10"] if self.priority else []
        program = [self.flower_python, FLOWER_END] if transport.program == "flower" else [self.link]
        return [*real_time, *program, verb, "--certs", self.certs, *transport.end_flags(), *argv]


@dataclass(frozen=True)
class Transport:
    """What carries the objects: `quic`, `quic-cubic`, `grpc-bbr`, `grpc-default-bbr` and the like."""

    label: str
    program: str
    congestion: str = None
    default_windows: bool = False

    @classmethod
    def parse(cls, label):
        """Raises ValueError for what is none."""
        program, _, congestion = label.partition("-")
        default_windows = program == "grpc" and congestion.startswith(DEFAULT_WINDOWS)
        if default_windows:
            congestion = congestion.removeprefix(DEFAULT_WINDOWS)
        if program not in PAYLOAD_SHARE or (program != "quic" and not congestion):
            known = "quic, quic-NAME, grpc-NAME, grpc-default-NAME, tls-NAME, flower-NAME (NAME: congestion control)"
            raise ValueError(f"{label!r} is none of {known}")
        return cls(label, program, congestion or None, default_windows)

    def end_flags(self):
        """What both ends have to know."""
        chosen = ["--congestion", self.congestion] if self.program == "quic" and self.congestion else []
        windows = ["--default-windows"] if self.default_windows else []
        return [*([] if self.program == "flower" else ["--transport", self.program]), *chosen, *windows]

    def link_flags(self):
        """TCP has its congestion control from the namespace."""
        return [] if self.program == "quic" else ["--tcp-congestion", self.congestion]


def measure(programs, profile, transport, seed, flags, link_flags=()):
    """One sound sample of a transfer."""
    return sound(lambda: _once(programs, profile, transport, seed, flags, link_flags))


def sound(once):
    """One sound sample; or, after the repeats, the last one with its faults in `faults`."""
    for repeat in range(1 + REPEATS_MAX):
        sample = once()
        sample["repeats"] = repeat
        if not sample["faults"]:
            break
    return sample


def transfer_flags(direction, megabytes, seconds_max):
    """The flags of a transfer of so many megabytes in OBJECTS objects."""
    object_bytes = megabytes * 1_000_000 // OBJECTS
    size = ["--objects", OBJECTS, "--object-bytes", object_bytes, "--parallel", PARALLEL]
    return ["--direction", direction, *size, "--seconds-max", seconds_max]


def judge(sample, direction):
    """Adds the figures: shares of the link's rate and of the useful bytes, CPU time for each gigabyte."""
    client, link = sample["client"], sample["link"]["directions"][DATA_DIRECTION[direction]]
    useful_bytes = client["bytes"]
    if client["capped"]:
        # A gRPC server counts objects that are complete, so the link is asked.
        useful_bytes = max(useful_bytes, round(link["bytes_out"] * PAYLOAD_SHARE[client["transport"]]))
    goodput_mbit = useful_bytes * 8 / client["seconds"] / 1e6
    gigabytes = max(useful_bytes, 1) / 1e9
    sample.update(
        direction=direction,
        capped=client["capped"],
        goodput_mbit=goodput_mbit,
        goodput_share=goodput_mbit / sample["asked"]["rate_mbit"],
        sent_ratio=link["bytes_in"] / max(useful_bytes, 1),
        client_cpu_s_per_gb=_cpu(client) / gigabytes,
        server_cpu_s_per_gb=_cpu(sample["server"]) / gigabytes,
        client_rss_mb=client["usage"]["rss_peak_bytes"] / 1e6,
        server_rss_mb=sample["server"]["usage"]["rss_peak_bytes"] / 1e6,
    )
    return sample


def faults(statistics, rtt_ms):
    """Why the host was too busy for this measurement, or the link not what it should be."""
    directions, found = statistics["directions"].values(), []
    late_us = max(one["lateness_us"]["p99"] for one in directions)
    if late_us > max(LATENESS_SHARE * rtt_ms / 2 * 1000, LATENESS_US):
        found.append(f"late by {late_us:.0f} us")
    if any(statistics["tx_dropped"]):
        found.append("drops in a device")
    if any(one["packet_bytes_max"] > MTU_BYTES for one in directions):
        found.append("packets beyond the MTU")
    if any(one["write_errors"] for one in directions):
        found.append("write errors")
    return found


def _once(programs, profile, transport, seed, flags, link_flags):
    load = load_average()
    with Link(profile, seed, programs.emulator, [*link_flags, *transport.link_flags()]) as link, Children() as children:
        # What is moved concerns only a server that has to be given it.
        server = Server(children, programs, link, transport, flags if transport.program == "flower" else ())
        client = Client(children, programs, link, transport, server.address, flags).end()
        # At once, before anything more arrives.
        statistics = link.stats()
        served = server.end()
        final = link.close() or statistics
        asked = link.ready["profile"]
    found = faults(final, asked["rtt_ms"])
    wanted = transport.congestion if transport.program != "quic" else None
    for end in (client, served):
        if wanted and end["kernel"]["tcp_congestion"] != wanted:
            found.append(f"TCP runs {end['kernel']['tcp_congestion']}")
    return {
        "profile": profile,
        "transport": transport.label,
        "seed": seed,
        "asked": asked,
        "load_average": load,
        "faults": found,
        "client": client,
        "server": served,
        "link": statistics,
        "link_final": final,
    }


class Server:
    """The end on side 1, which says at `address` where it listens."""

    def __init__(self, children, programs, link, transport, flags=(), port=PORT):
        argv = programs.end(transport, "serve", "--listen", f"{link.addresses[1]}:{port}", *flags)
        pipe = subprocess.PIPE
        self._children, self._what = children, f"{transport.program} serve"
        self._child = children.spawn(link.command(1, argv), stdin=pipe, stdout=pipe, text=True)
        self.address = self._line("does not start")["address"]

    def end(self):
        """Its last words."""
        self._child.stdin.close()
        last = self._line("says nothing at the end")
        self._children.stop(self._child)
        return last

    def _line(self, otherwise):
        line = self._child.stdout.readline()
        if not line:
            raise Failed(f"{self._what} {otherwise}")
        return json.loads(line)


class Client:
    """The end on side 0, which begins at once."""

    def __init__(self, children, programs, link, transport, address, flags):
        argv = programs.end(transport, "run", "--server", address, *flags)
        self._children, self._seconds = children, _seconds_max(flags) + SLACK_S
        self._what = f"{transport.program} run"
        pipe = subprocess.PIPE
        self._child = children.spawn(link.command(0, argv), stdout=pipe, stderr=pipe, text=True)

    def end(self):
        """What it reports, once it has ended."""
        try:
            said, complaint = self._child.communicate(timeout=self._seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self._what} does not end within {self._seconds} s") from None
        status = self._child.returncode
        self._children.stop(self._child)
        if status != 0:
            raise Failed(complaint.strip() or f"{self._what} ends with status {status}")
        return json.loads(said)


def _seconds_max(flags):
    return int(flags[flags.index("--seconds-max") + 1]) if "--seconds-max" in flags else 0


def _cpu(end):
    return end["usage"]["cpu_user_seconds"] + end["usage"]["cpu_system_seconds"]


def can_prioritize():
    """Whether ends can run under SCHED_FIFO."""
    return os.geteuid() == 0 and shutil.which("chrt") is not None

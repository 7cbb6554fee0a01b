"""The mixes of our programs and Flower's that are tested, and the table of them in the README.

``python services/e2e/python/mix/support.py`` prints the table.
"""

from __future__ import annotations

from itertools import product
from typing import Optional

Side = tuple[str, Optional[str]]
"""Isolation, and whose SuperExec launches the apps where the daemon does not."""

OURS, STOCK = "ours", "stock"
SIDES: list[Side] = [("subprocess", None), ("process", OURS), ("process", STOCK)]

QUIC = "quic"
"""A SuperNode of ours that comes by QUIC."""

MIXES = [
    *product((OURS, STOCK), (OURS, STOCK), SIDES, SIDES),
    *product((OURS,), (QUIC,), SIDES, SIDES),
]
"""SuperLink, SuperNode, the SuperLink's side, the SuperNode's side."""


def is_encrypted(daemon: str, side: Side) -> bool:
    """Whether a daemon and a SuperExec beside it speak TLS: stock programs can neither serve nor ask so."""
    return daemon in (OURS, QUIC) and side == ("process", OURS)


def table() -> str:
    """A row for each SuperLink and what launches its ServerApps, a column for each SuperNode."""
    nodes = list(product((OURS, QUIC, STOCK), SIDES))
    lines = [
        ["SuperLink \\ SuperNode", *(_name(*node) for node in nodes)],
        ["---"] * (len(nodes) + 1),
    ]
    for superlink, server in product((OURS, STOCK), SIDES):
        row = [f"**{_name(superlink, server)}**"]
        for supernode, client in nodes:
            if (superlink, supernode, server, client) not in MIXES:
                row.append("no")
                continue
            ends = []
            if is_encrypted(superlink, server):
                ends.append("9091")
            if is_encrypted(supernode, client):
                ends.append("9094")
            row.append(" ".join(["yes", *(f"+{end}" for end in ends)]))
        lines.append(row)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _name(daemon: str, side: Side) -> str:
    isolation, launcher = side
    name = "ours over QUIC" if daemon == QUIC else daemon
    return f"{name}, {isolation}" if launcher is None else f"{name}, {isolation}, {launcher} SuperExec"


if __name__ == "__main__":
    print(table())

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

MIXES = list(product((OURS, STOCK), (OURS, STOCK), SIDES, SIDES))
"""SuperLink, SuperNode, the SuperLink's side, the SuperNode's side."""


def is_encrypted(daemon: str, side: Side) -> bool:
    """Whether a daemon and a SuperExec beside it speak TLS: stock programs can neither serve nor ask so."""
    return daemon == OURS and side == ("process", OURS)


def table() -> str:
    """A row for each SuperLink and what launches its ServerApps, a column for each SuperNode."""
    sides = list(product((OURS, STOCK), SIDES))
    lines = [
        ["SuperLink \\ SuperNode", *(_name(*side) for side in sides)],
        ["---"] * (len(sides) + 1),
    ]
    for superlink, server in sides:
        row = [f"**{_name(superlink, server)}**"]
        for supernode, client in sides:
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
    return f"{daemon}, {isolation}" if launcher is None else f"{daemon}, {isolation}, {launcher} SuperExec"


if __name__ == "__main__":
    print(table())

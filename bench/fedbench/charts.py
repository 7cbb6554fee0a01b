"""Which pictures are drawn of which results."""

import statistics

from . import fairness, linkreport
from .linkreport import by, summary
from .svg import Bar, Chart, Group, draw as picture

DIRECTIONS = {"up": "uploads", "down": "downloads"}
SPREAD = "bars are medians, whiskers the least and the most of all runs"


def draw(folder, cells, results):
    """Writes `wan-*.svg` into `folder`, which is made if need be; returns their paths."""
    pictures = {}
    for direction, name in DIRECTIONS.items():
        some = [cell for cell in cells if cell["direction"] == direction]
        if some:
            pictures[f"wan-goodput-{direction}"] = goodput(some, name)
    if results.get("control"):
        pictures["wan-control"] = control(results["control"])
    if results.get("fairness"):
        pictures["wan-fairness"] = fair(results["fairness"])
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, content in pictures.items():
        paths.append(folder / f"{name}.svg")
        paths[-1].write_text(content)
    return paths


def goodput(cells, name):
    """What transports make of each link; cells of one direction."""
    chart = Chart(
        title=f"Goodput of {name} over the emulated links",
        note=f"one connection, {SPREAD}",
        y_title="goodput / rate of the link",
        x_title="link",
        goal_title="goal for QUIC",
    )
    groups = []
    for (profile,), some in by(cells, "profile").items():
        bars = [Bar(cell["transport"], *spread(cell["goodput_share"])) for cell in some]
        groups.append(Group(two_lines(profile), tuple(bars), linkreport.GOALS.get(profile)))
    return picture(chart, groups)


def control(samples):
    """How long small calls take beside a bulk transfer."""
    queue_ms = samples[0]["asked"]["rtt_ms"]
    chart = Chart(
        title="Small calls beside an upload on the same connection",
        note=f"{queue_ms:g} ms round trip, a queue of one product of rate and round trip; {SPREAD}",
        y_title="milliseconds",
        x_title="transport",
        goal_title=f"goal for QUIC: p99 at most {linkreport.CONTROL_QUEUES:g} queues above idle",
    )
    groups = []
    for (name,), many in by(samples, "transport").items():
        controls = [one["client"]["control"] for one in many]
        bars = [
            Bar(f"{what} {when}", *spread(summary([one[when][f"{what}_ms"] for one in controls])))
            for when, what in (("idle", "p99"), ("loaded", "p50"), ("loaded", "p99"))
        ]
        idle_ms = statistics.median(one["idle"]["p99_ms"] for one in controls)
        goal = idle_ms + linkreport.CONTROL_QUEUES * queue_ms if name.startswith("quic") else None
        groups.append(Group((name,), tuple(bars), goal))
    return picture(chart, groups)


def fair(samples):
    """What each of two flows gets of a bottleneck."""
    chart = Chart(
        title="Two uploads through one bottleneck",
        note=f"{fairness.RATE_MBIT} Mbit/s, a queue of one product of rate and round trip; {SPREAD}",
        y_title="share of a fair half",
        x_title="flows and round trip",
        goal_title="goal beside QUIC: no less than this",
    )
    groups = []
    for (rtt_ms, label), many in by(samples, "rtt_ms", "pair").items():
        names = label.split("+")
        bars = [Bar(name, *spread(summary(fairness.shares_of(many, number)))) for number, name in enumerate(names)]
        goal = fairness.GOAL if any(name.startswith("quic") for name in names) else None
        groups.append(Group((names[0], f"+ {names[1]}", f"{rtt_ms:g} ms"), tuple(bars), goal))
    return picture(chart, groups)


def spread(of):
    """Median, least and most."""
    return of["median"], of["min"], of["max"]


def two_lines(profile):
    """`wan-50-0.5-shallow`: the link, and what is special about it."""
    parts = profile.split("-")
    return ("-".join(parts[:3]), *parts[3:])

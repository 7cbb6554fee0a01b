"""A transfer whose client gets another address, at once or after a time offline: how long no bytes arrive."""

import time

from . import flows, linkrun
from .linkreport import at_most, by, markdown, spread, summary

PROFILE = "wan-50-0.5"
OFFLINE_S = (0, 1, 3, 10)
BEFORE_S, AFTER_S = 3, 9
ADDRESS = "10.77.0.9"
RTTS_MAX = 8


def measure(programs, transport, direction, offline_s, seed):
    """One run over a lossy link."""
    seconds = BEFORE_S + offline_s + AFTER_S

    def meanwhile(link):
        return move(link, offline_s)

    def transfer():
        return flows.transfer(programs, PROFILE, [transport], seed, seconds, (), meanwhile, direction)

    return judge(linkrun.sound(transfer), direction, offline_s)


def move(link, offline_s):
    """Takes the client's address away and gives it another; packets get nowhere in between."""
    time.sleep(BEFORE_S)
    begin_s = time.monotonic()
    if offline_s:
        link.send({"down": True})
        time.sleep(offline_s)
    link.send({"readdress": {"side": 0, "address": ADDRESS}})
    link.send({"down": False})
    # Requests are served in turn, so that this answer comes when the address is there.
    link.stats()
    return {"begin_s": begin_s, "end_s": time.monotonic()}


def judge(sample, direction, offline_s):
    """Adds the figures: the longest silence around the change, and what of it is more than the time offline."""
    flow, change = sample["flows"][0], sample["meanwhile"]
    arrivals = flow["server" if direction == "up" else "client"]["arrivals"]
    gap_s = longest_silence(arrivals, change, sample["ended_s"])
    away_s = change["end_s"] - change["begin_s"]
    rtt_s = sample["asked"]["rtt_ms"] / 1000
    sample.update(
        transport=flow["transport"],
        direction=direction,
        offline_s=offline_s,
        away_ms=away_s * 1e3,
        gap_ms=gap_s * 1e3,
        gap_rtts=(gap_s - away_s) / rtt_s,
        after_mbit=flows.bytes_between(arrivals, sample["ended_s"] - 2, sample["ended_s"]) * 8 / 2 / 1e6,
    )
    arrivals.pop("bytes")
    return sample


def longest_silence(arrivals, change, ended_s):
    """Of those that touch the change or come after it, in seconds. The one at the end counts if nothing came back."""
    silences = [(gap["at_s"], gap["seconds"]) for gap in arrivals["gaps"]]
    if arrivals["last_s"] is not None and arrivals["last_s"] < change["end_s"]:
        silences.append((arrivals["last_s"], ended_s - arrivals["last_s"]))
    around = [seconds for at_s, seconds in silences if at_s + seconds >= change["begin_s"]]
    if not around:
        raise linkrun.Failed("nothing has arrived, or no silence is known")
    return max(around)


def table(samples):
    """Markdown."""
    head = ("transport", "direction", "offline s", "away ms", "longest silence ms")
    rows = [(*head, "more, in round trips", "Mbit/s at the end", "runs")]
    figures = (("away_ms", 0), ("gap_ms", 0), ("gap_rtts", 1), ("after_mbit", 0))
    for (name, direction, offline_s), many in by(samples, "transport", "direction", "offline_s").items():
        cells = (spread(summary([one[what] for one in many]), digits) for what, digits in figures)
        rows.append((name, direction, str(offline_s), *cells, str(len(many))))
    return markdown(rows)


def targets(samples):
    """The median of the runs is held against the goal."""
    return [
        at_most(
            f"{name} {direction}: silence beyond {offline_s} s offline, in round trips",
            RTTS_MAX,
            summary([one["gap_rtts"] for one in many])["median"],
        )
        for (name, direction, offline_s), many in by(samples, "transport", "direction", "offline_s").items()
    ]

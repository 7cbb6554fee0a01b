"""Figures, targets and how both are shown."""

import json
import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured figure and what it is held against."""

    title: str
    unit: str
    digits: int
    target: float
    relative: bool = True  # the target is for ours / stock, else for our figure itself

    def target_text(self):
        """The target as it stands in the table."""
        return f"<= {self.target:.2f}" if self.relative else f"<= {self.target:g} {self.unit}"


FIGURES = {
    "pull": Figure("server CPU per empty Fleet.PullMessages", "ms", 3, 0.20),
    "heartbeat": Figure("server CPU per Fleet.SendNodeHeartbeat", "ms", 3, 0.25),
    "pull-database": Figure("the same as pull, with a database", "ms", 3, 0.10),
    "heartbeat-database": Figure("the same as heartbeat, with a database", "ms", 3, 0.10),
    "bytes": Figure("server CPU per GB of objects, in and out", "s/GB", 2, 0.45),
    "memory": Figure("peak resident memory / distinct object bytes", "x", 2, 1.5, relative=False),
    "round": Figure("mean round in which nobody computes", "s", 2, 0.55),
    "noop": Figure("median round without computing, all daemons", "s", 2, 1.0, relative=False),
    "large": Figure("round of 400 MB to two nodes, all daemons", "s", 1, 0.5),
    "node-memory": Figure("peak memory of a SuperNode, 2 GB message", "MB", 0, 150, relative=False),
    "idle-memory": Figure("memory of an idle SuperNode", "MB", 1, 20, relative=False),
    "idle-cpu": Figure("CPU of an idle SuperNode", "% of a core", 3, 0.1, relative=False),
}


def summarize(samples):
    """{figure: {label: {median, min, max, samples}, ratio, target, met}} of the samples of a run."""
    result = {}
    for figure, of_kind in samples.items():
        entry = {label: _spread([one["value"] for one in many]) for label, many in of_kind.items()}
        ours, stock = (entry[label]["median"] for label in ("ours", "stock"))
        entry["ratio"] = ours / stock if stock else float("nan")
        entry["pair_ratios"] = [
            mine["value"] / theirs["value"] for mine, theirs in zip(of_kind["ours"], of_kind["stock"])
        ]
        entry["target"] = FIGURES[figure].target_text()
        entry["met"] = (entry["ratio"] if FIGURES[figure].relative else ours) <= FIGURES[figure].target
        result[figure] = entry
    return result


def table(summary, samples):
    """The compact table, as text."""
    rows = [("figure", "unit", "stock", "ours", "ours/stock", "target", "met")]
    for name, entry in summary.items():
        figure = FIGURES[name]
        stock, ours = (_cell(entry[label], figure.digits) for label in ("stock", "ours"))
        pairs = entry["pair_ratios"]
        ratio = f"{entry['ratio']:.2f} [{min(pairs):.2f}-{max(pairs):.2f}]"
        rows.append((figure.title, figure.unit, stock, ours, ratio, entry["target"], "yes" if entry["met"] else "NO"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", *_notes(samples)])


def machine_text(facts, command, seconds):
    """The machine, the versions and the command, as text."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    load = f"{facts['load_average_at_start']:.2f} at the start, {facts['load_average_at_end']:.2f} at the end"
    return "\n".join(
        [
            f"machine   {facts['cpus']} x {facts['cpu']}, {facts['memory_gb']} GB, kernel {facts['kernel']}",
            f"load      {load}; {facts['busy_percent']:.0f} % busy, {facts['stolen_percent']:.1f} % stolen",
            f"stock     Python {facts['python']}, {versions}",
            f"ours      {facts['subject']}, commit {facts['commit']}",
            f"command   {command} ({seconds:.0f} s)",
        ]
    )


def write_json(path, facts, command, seconds, summary, samples):
    """Everything that was measured, sample by sample."""
    whole = {"command": command, "seconds": seconds, "machine": facts, "summary": summary, "samples": samples}
    path.write_text(json.dumps(whole, indent=2) + "\n")


def line(label, result):
    """One sample while the run is going on."""
    return f"  {label:5}  " + "  ".join(
        f"{name} {one['value']:.{FIGURES[name].digits}f} {FIGURES[name].unit}" for name, one in result.items()
    )


def _spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "samples": len(values)}


def _cell(spread, digits):
    return "{:.{d}f} [{:.{d}f}-{:.{d}f}]".format(spread["median"], spread["min"], spread["max"], d=digits)


def _notes(samples):
    """Lines below the table: what the ratios alone do not say."""
    notes = []
    for name, title in (("pull", "pull"), ("heartbeat", "heartbeat")):
        if name in samples:
            idle = [f"{label} {_median(many, 'idle_cpu_ms_per_s'):.2f}" for label, many in samples[name].items()]
            calls = samples[name]["ours"][0]["calls"]
            notes.append(f"{title}: {calls} calls a sample; idle CPU of the server, ms per s: {', '.join(idle)}")
        if name in samples and f"{name}-database" in samples:
            kept, alone = (_median(samples[figure]["ours"], "value") for figure in (f"{name}-database", name))
            notes.append(f"{title}: ours with a database takes {kept / alone:.2f} times what it takes without")
    if "memory" in samples:
        for label, many in samples["memory"].items():
            peak, alive, before = (_median(many, key) for key in ("peak_mb", "distinct_alive_mb", "before_mb"))
            notes.append(f"memory: {label} {before:.0f} MB before, {peak:.0f} MB peak, {alive:.0f} MB distinct alive")
    if "bytes" in samples:
        moved = [f"{label} {_median(many, 'gb_in_and_out'):.2f} GB" for label, many in samples["bytes"].items()]
        walls = [f"{label} {_median(many, 'wall_s'):.1f} s" for label, many in samples["bytes"].items()]
        notes.append(f"bytes: moved a round {', '.join(moved)}; wall clock {', '.join(walls)}")
    for name in ("round", "noop"):
        for label, many in samples.get(name, {}).items():
            seconds = [second for one in many for second in one["seconds"]]
            shown = " ".join(f"{second:.1f}" for second in seconds)
            notes.append(f"{name}: {label} {len(seconds)} rounds, {min(seconds):.2f} to {max(seconds):.2f} s: {shown}")
    return notes


def _median(samples, key):
    return statistics.median(one[key] for one in samples)

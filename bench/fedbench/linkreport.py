"""What samples of transfers come to: medians, targets, Markdown."""

import json
import os
import statistics

from . import machine

GOALS = {"wan-20": 0.90, "wan-20-0.1": 0.90, "wan-50-0.5": 0.88, "wan-100-1": 0.84, "wan-200-2": 0.78}
"""Goodput of QUIC, as a share of the link's rate."""

OF_BBR, OF_CUBIC, CUBIC_LOSS_PERCENT = 0.95, 5, 0.1
OF_DEFAULT_WINDOWS, DEFAULT_WINDOWS_RTT_MS = 2.5, 100
SENT_RATIO = 1.10
LAN_GOAL, LAN_CPUS = 0.75, 4
CONTROL_QUEUES, CONTROL_OF_GRPC = 1.5, 0.15
TTFB_QUIC, TTFB_GRPC, TTFB_AGAIN = 2.2, 3.2, 1.15
AGAIN = ", again"
"""A client that was there before."""

FIGURES = (
    "goodput_share",
    "sent_ratio",
    "client_cpu_s_per_gb",
    "server_cpu_s_per_gb",
    "client_rss_mb",
    "server_rss_mb",
)
CONTROL_FIGURES = (
    ("idle", "p50_ms"),
    ("idle", "p99_ms"),
    ("loaded", "p50_ms"),
    ("loaded", "p99_ms"),
    ("loaded", "max_ms"),
)


def write(options, whole, tables, pictures=()):
    """Prints the tables and writes what `flags.add_results` asks for; returns the exit status.

    `pictures` are files that the Markdown shows.
    """
    rows = whole["targets"]
    about = machine.text(whole["machine"], whole["command"], whole["seconds"])
    text = "\n\n".join(table for table in (about, *tables, targets_table(rows)) if table)
    if options.markdown:
        folder = options.markdown.parent
        shown = [f"![{path.stem}]({os.path.relpath(path, folder)})" for path in pictures]
        options.markdown.write_text("\n\n".join([text, *shown]) + "\n")
    if options.json:
        save(options.json, whole)
    # Last: whoever reads it may have gone.
    print("\n" + text)
    return 1 if options.check and any(row["met"] is False for row in rows) else 0


def save(path, whole):
    """Writes JSON so that the file is never a half one."""
    half = path.with_name(path.name + ".part")
    half.write_text(json.dumps(whole, indent=2) + "\n")
    half.replace(path)


def summarize(samples):
    """One cell for each profile, direction and transport, in the order in which they came."""
    return [_cell(*key, many) for key, many in by(samples, "profile", "direction", "transport").items()]


def targets(cells, cpus):
    """Goals that the cells can be held against: [{row, goal, measured, met}]."""
    found = {(cell["profile"], cell["direction"], cell["transport"]): cell for cell in cells}
    rows = []
    for cell in cells:
        if not cell["transport"].startswith("quic"):
            continue
        profile, direction, name = cell["profile"], cell["direction"], cell["transport"]
        share, where = cell["goodput_share"]["median"], f"{profile} {direction}"
        is_lan = profile == "lan"
        goal = LAN_GOAL if is_lan and cpus >= LAN_CPUS else GOALS.get(profile)
        if goal:
            rows.append(at_least(f"{where}: {name} / link", goal, share))
        elif is_lan:
            rows.append(no_goal(f"{where}: {name} / link", f"none on {cpus} CPUs", share))
        loss = cell["loss_percent"]
        rows.append(at_most(f"{where}: {name} sent / useful", SENT_RATIO + loss / 100, cell["sent_ratio"]["median"]))
        bbr = found.get((profile, direction, "grpc-bbr"))
        if bbr and is_lan:
            rows.append(no_goal(f"{where}: CPU of {name} / grpc-bbr", "none", cpu(cell) / cpu(bbr)))
        elif bbr:
            rows.append(at_least(f"{where}: {name} / grpc-bbr", OF_BBR, share / bbr["goodput_share"]["median"]))
        for other in ("grpc-cubic", "flower-cubic"):
            cubic = found.get((profile, direction, other))
            if cubic and loss >= CUBIC_LOSS_PERCENT:
                rows.append(at_least(f"{where}: {name} / {other}", OF_CUBIC, share / cubic["goodput_share"]["median"]))
        small = found.get((profile, direction, "grpc-default-bbr"))
        if small and cell["rtt_ms"] >= DEFAULT_WINDOWS_RTT_MS:
            ratio = share / small["goodput_share"]["median"]
            rows.append(at_least(f"{where}: {name} / grpc-default-bbr", OF_DEFAULT_WINDOWS, ratio))
    return rows


def control_targets(samples):
    """Small calls beside a bulk transfer: their p99 less that of an idle connection."""
    added, rows = _added_p99(samples), []
    for name, many in added.items():
        if not name.startswith("quic"):
            continue
        queue_ms = samples[0]["asked"]["rtt_ms"]
        rows.append(at_most(f"{name}: added p99 / queue delay", CONTROL_QUEUES, statistics.median(many) / queue_ms))
        for other in (other for other in added if other.startswith("grpc")):
            ratio = statistics.median(many) / statistics.median(added[other])
            rows.append(at_most(f"{name}: added p99 / {other}", CONTROL_OF_GRPC, ratio))
    return rows


def ttfb_targets(samples):
    """Time to the first answer on a new connection, in round trips."""
    goals, rows = {"quic": TTFB_QUIC, "grpc": TTFB_GRPC}, []
    for name, many in _by_transport(samples).items():
        goal = TTFB_AGAIN if name.endswith(AGAIN) else goals.get(name.partition("-")[0])
        if goal:
            median = statistics.median(one["client"]["ttfb_ms"] for one in many)
            rows.append(at_most(f"{name}: first answer / round trip", goal, median / many[0]["asked"]["rtt_ms"]))
    return rows


def cells_table(cells):
    """Markdown. A goodput with CAP is that of a transfer that was cut off, one with ! of a host that was too busy."""
    head = ("profile", "direction", "transport", "goodput / link", "sent / useful")
    rows = [(*head, "CPU s/GB client", "server", "RSS MB client", "server", "runs")]
    for cell in cells:
        marks = (" CAP" if cell["capped"] else "") + (" !" if cell["faulty"] else "")
        figures = (spread(cell[name], digits) for name, digits in zip(FIGURES[1:], (2, 1, 1, 0, 0)))
        share = spread(cell["goodput_share"], 3) + marks
        rows.append((cell["profile"], cell["direction"], cell["transport"], share, *figures, str(cell["runs"])))
    return markdown(rows)


def control_table(samples):
    """Markdown."""
    rows = [("transport", "Mbit/s", "idle p50 ms", "idle p99", "loaded p50 ms", "loaded p99", "loaded max")]
    for name, many in _by_transport(samples).items():
        controls = [one["client"]["control"] for one in many]
        figures = (spread(summary([control[when][what] for control in controls]), 1) for when, what in CONTROL_FIGURES)
        rows.append((name, spread(summary([one["client"]["goodput_mbit"] for one in many]), 0), *figures))
    queue_ms = samples[0]["asked"]["rtt_ms"]
    return f"{markdown(rows)}\n\nThe queue of one product of rate and round trip takes {queue_ms:g} ms to pass."


def ttfb_table(samples):
    """Markdown."""
    rows = [("transport", "first answer ms", "round trips", "runs")]
    for name, many in _by_transport(samples).items():
        times = summary([one["client"]["ttfb_ms"] for one in many])
        rows.append((name, spread(times, 1), f"{times['median'] / many[0]['asked']['rtt_ms']:.2f}", str(len(many))))
    return markdown(rows)


def targets_table(rows):
    """Markdown, or nothing if there is no goal to hold anything against."""
    if not rows:
        return ""
    head = ("target", "goal", "measured", "met")
    met = ({True: "yes", False: "NO", None: "-"}[row["met"]] for row in rows)
    return markdown([head, *((row["row"], row["goal"], f"{row['measured']:.2f}", one) for row, one in zip(rows, met))])


def markdown(rows):
    """A table; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def spread(of, digits):
    """`median [min-max]`."""
    return "{median:.{d}f} [{min:.{d}f}-{max:.{d}f}]".format(**of, d=digits)


def _cell(profile, direction, transport, many):
    cell = {"profile": profile, "direction": direction, "transport": transport, "runs": len(many)}
    cell["loss_percent"], cell["rtt_ms"] = (many[0]["asked"][name] for name in ("loss_percent", "rtt_ms"))
    cell["capped"] = sum(one["capped"] for one in many)
    cell["faulty"] = sum(bool(one["faults"]) for one in many)
    cell.update({name: summary([one[name] for one in many]) for name in FIGURES})
    return cell


def _added_p99(samples):
    controls = {name: [one["client"]["control"] for one in many] for name, many in _by_transport(samples).items()}
    return {
        name: [control["loaded"]["p99_ms"] - control["idle"]["p99_ms"] for control in many]
        for name, many in controls.items()
    }


def _by_transport(samples):
    return {name: many for (name,), many in by(samples, "transport").items()}


def by(samples, *names):
    """Lists of samples that have the same values of these names, in the order in which they came."""
    result = {}
    for sample in samples:
        result.setdefault(tuple(sample[name] for name in names), []).append(sample)
    return result


def cpu(cell):
    """CPU-seconds of both ends for each gigabyte."""
    return sum(cell[f"{end}_cpu_s_per_gb"]["median"] for end in ("client", "server"))


def summary(values):
    """Median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def at_least(row, goal, measured):
    """A target that is met from `goal` on."""
    return {"row": row, "goal": f">= {goal:g}", "measured": measured, "met": measured >= goal}


def at_most(row, goal, measured):
    """A target that is met up to `goal`."""
    return {"row": row, "goal": f"<= {goal:g}", "measured": measured, "met": measured <= goal}


def no_goal(row, why, measured):
    """A figure that is published and held against nothing."""
    return {"row": row, "goal": why, "measured": measured, "met": None}

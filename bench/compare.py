#!/usr/bin/env python3
"""Measures flwr-quic beside stock Flower 1.22 in one run: the SuperLink alone, or whole federations.

Run it with the Python of an environment that has flwr==1.22.0; `bench/run.sh` sees to that
and to the release build. bench/README.md says what each figure means.
"""

import argparse
import os
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path

from fedbench.flags import names, positive

ROOT = Path(__file__).resolve().parents[1]
SUPERLINK = ("pull", "heartbeat", "pull-database", "heartbeat-database", "bytes", "memory", "round")
"""Figures of the SuperLink, with stock SuperNodes and clients around it."""

NODES = ("noop", "large", "node-memory", "idle-memory", "idle-cpu")
"""Figures of whole federations, ours throughout or stock throughout."""

FIGURES = (*SUPERLINK, *NODES)
TIME_LIMIT_S = 2400


class TimeLimit(Exception):
    """The whole run took longer than allowed."""


def main():
    """Exit status: 0 done, 1 failed or (with --check) a target was missed, 2 usage, 130 interrupted."""
    options = parse(sys.argv[1:])
    # Nothing is sent anywhere, and no proxy sits on the loopback.
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", no_grpc_proxy="127.0.0.1,localhost")
    try:
        import grpc

        from fedbench import machine, report, servers
    except ImportError as error:
        print(f"{error}: run this with the Python of an environment that has flwr==1.22.0", file=sys.stderr)
        return 1
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGALRM, _time_is_up)
    signal.alarm(options.time_limit)

    stock = servers.Kind.stock()
    ours = servers.Kind.stock("ours") if options.self_comparison else servers.Kind.ours(options.subject)
    facts = machine.facts(None if options.self_comparison else options.subject)
    command = shlex.join(["bench/compare.py", *sys.argv[1:]])
    begin, ticks = time.monotonic(), machine.busy_ticks()
    try:
        samples = measure(options, stock, ours)
    except KeyboardInterrupt:
        print("interrupted; everything that was started has been ended", file=sys.stderr)
        return 130
    except (RuntimeError, OSError, TimeLimit, grpc.RpcError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    seconds = time.monotonic() - begin
    machine.add_load(facts, ticks)
    summary = report.summarize(samples)
    print("\n" + report.machine_text(facts, command, seconds) + "\n\n" + report.table(summary, samples))
    if options.json:
        report.write_json(options.json, facts, command, seconds, summary, samples)
    return 1 if options.check and not all(entry["met"] for entry in summary.values()) else 0


def measure(options, stock, ours):
    """All samples: {figure: {label: [{"value": ...}, ...]}}, in the order of FIGURES."""
    from fedbench import calls, machine, nodes, processes, report, rounds, tls, transfer

    samples = {}
    with tempfile.TemporaryDirectory(prefix="flwr-bench-") as name, processes.Children() as children:
        folder = Path(name)
        tls.make_certificates(folder)

        def pair(number, take, kinds=(stock, ours)):
            # The order changes each time, so that neither side profits from its place.
            for kind in kinds if number % 2 == 0 else reversed(kinds):
                result = {figure: one for figure, one in take(kind).items() if figure in options.only}
                print(report.line(kind.label, result), flush=True)
                for figure, one in result.items():
                    one["load_average"] = machine.load_average()
                    samples.setdefault(figure, {}).setdefault(kind.label, []).append(one)

        called = [figure for figure in calls.METHODS if figure in options.only]
        kept = [figure for figure in calls.KEPT if figure in options.only]
        for number in range(max(options.repeats, options.round_repeats)):
            if called and number < options.repeats:
                pair(
                    number,
                    lambda kind: calls.measure(kind, children, folder, called, options.calls, options.calls_tls),
                )
            if kept and number < options.repeats:
                pair(
                    number,
                    lambda kind: calls.measure(kind, children, folder, kept, options.calls, options.calls_tls),
                    (stock.keeping(), ours.keeping()),
                )
            if {"bytes", "memory"} & set(options.only) and number < options.repeats:
                size = options.model_mb * 1_000_000
                pair(number, lambda kind: transfer.measure(kind, children, folder, size))
            if "round" in options.only and number < options.round_repeats:
                pair(number, lambda kind: rounds.measure(kind, children, folder, options.rounds))
            if number < options.round_repeats:
                if "noop" in options.only:
                    pair(number, lambda kind: nodes.measure_rounds(kind, children, folder, options.rounds))
                if "large" in options.only:
                    pair(number, lambda kind: nodes.measure_large_round(kind, children, folder, 400))
            if number == 0:
                if "node-memory" in options.only:
                    pair(number, lambda kind: nodes.measure_node_memory(kind, children, folder, 2000))
                if {"idle-memory", "idle-cpu"} & set(options.only):
                    pair(number, lambda kind: nodes.measure_idle(kind, children, folder))
    return {figure: samples[figure] for figure in FIGURES if figure in samples}


def parse(arguments):
    """The options; `--quick` only changes defaults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    help_only = f"comma-separated: {','.join(FIGURES)}; `superlink` and `nodes` stand for their groups (superlink)"
    add("--only", type=_figures, default=list(SUPERLINK), metavar="LIST", help=help_only)
    add("--repeats", type=positive, metavar="N", help="fresh pairs of servers for each figure (3; quick 1)")
    add("--calls", type=positive, metavar="N", help="calls a sample, for pull and heartbeat (2000; quick 1000)")
    add("--calls-tls", action=argparse.BooleanOptionalAction, default=True, help="pull and heartbeat over TLS")
    add("--model-mb", type=positive, default=420, metavar="MB", help="size of the model in a transfer round")
    add("--rounds", type=positive, metavar="N", help="rounds of a run, for round (10; quick 4)")
    add("--round-repeats", type=positive, metavar="N", help="fresh pairs of servers for round (2; quick 1)")
    add("--subject", type=Path, default=ROOT / "target" / "release" / "flwr-quic", help="the program to measure")
    add("--self-comparison", action="store_true", help="stock against stock: shows the noise of the method")
    add("--quick", action="store_true", help="fewer samples, under 3 minutes on an idle machine")
    add("--check", action="store_true", help="exit with status 1 if a target is missed")
    add("--json", type=Path, metavar="FILE", help="also write every sample to FILE")
    add("--time-limit", type=positive, default=TIME_LIMIT_S, metavar="S", help="give up after S seconds")
    options = parser.parse_args(arguments)
    defaults = {"repeats": (3, 1), "calls": (2000, 1000), "rounds": (10, 4), "round_repeats": (2, 1)}
    for name, (full, quick) in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else full)
    options.subject = options.subject.resolve()
    if not options.self_comparison and not os.access(options.subject, os.X_OK):
        parser.error(f"{options.subject} is not there: build it with `cargo build --release -p flwr-quic`")
    return options


def _figures(text):
    groups = {"superlink": SUPERLINK, "nodes": NODES}
    found = [name for one in names(text) for name in groups.get(one, (one,))]
    for name in found:
        if name not in FIGURES:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(FIGURES)}")
    return found


def _time_is_up(*_):
    raise TimeLimit("the time limit is over; see --time-limit")


if __name__ == "__main__":
    sys.exit(main())

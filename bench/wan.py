#!/usr/bin/env python3
"""Measures transfers over the emulated link: QUIC beside gRPC and plain TLS; `bash bench/wan.sh` builds and runs it."""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from fedbench import charts, experiments, fairness, linkreport, linkrun, machine, migration
from fedbench.flags import add_results, add_resume, names, positive
from fedbench.journal import Journal, Mismatch
from fedbench.wan import Link, Unable

ROOT = Path(__file__).resolve().parents[1]
TRANSPORTS = "quic,grpc-cubic,grpc-bbr,tls-cubic,tls-bbr"
QUICK_PROFILES, QUICK_MEGABYTES = "wan-20-0.1,wan-50-0.5", 30
EXPERIMENTS = {
    "matrix": "transfers over every link, in both directions; this is measured if nothing else is named",
    "control": "small calls beside a large upload",
    "ttfb": "time to the first answer of a new connection",
    "fairness": "two uploads through one bottleneck",
    "migration": "a transfer whose address changes",
}


def main():
    """Exit status: 0 done, 1 failed or (with --check) a target was missed, 77 no link here, 130 interrupted."""
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    ticks = machine.busy_ticks()
    command = shlex.join(["bench/wan.sh", *(one for one in sys.argv[1:] if one != "--resume")])
    try:
        facts = machine.facts(options.link, packages=())
        journal = Journal(options.json, command, facts, options.resume)
        with tempfile.TemporaryDirectory(prefix="flwr-link-") as certs:
            subprocess.run([options.link, "certs", certs], check=True)
            programs = linkrun.Programs(options.emulator, options.link, certs, options.chrt, options.flower_python)
            for name in options.experiments:
                experiments.ALL[name](options, programs, journal)
    except Unable as error:
        print(f"skipped: {error}", file=sys.stderr)
        return Link.UNABLE
    except KeyboardInterrupt:
        print("interrupted; everything that was started has been ended", file=sys.stderr)
        return 130
    except (linkrun.Failed, Mismatch, RuntimeError, OSError, subprocess.SubprocessError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    machine.add_load(facts, ticks)
    return finish(options, journal)


def finish(options, journal):
    """Prints and writes; returns the status."""
    results, cells, rows, tables = journal.results, [], [], []
    if results.get("matrix"):
        cells = linkreport.summarize(results["matrix"])
        tables.append(linkreport.cells_table(cells))
        rows += linkreport.targets(cells, journal.facts["cpus"])
    if results.get("control"):
        tables.append(linkreport.control_table(results["control"]))
        rows += linkreport.control_targets(results["control"])
    if results.get("ttfb"):
        tables.append(linkreport.ttfb_table(results["ttfb"]))
        rows += linkreport.ttfb_targets(results["ttfb"])
    for name, module in (("fairness", fairness), ("migration", migration)):
        if results.get(name):
            tables.append(module.table(results[name]))
            rows += module.targets(results[name])
    pictures = charts.draw(options.charts, cells, results) if options.charts else []
    whole = {**journal.head(), "cells": cells, "targets": rows, "samples": results}
    return linkreport.write(options, whole, tables, pictures)


def parse(arguments):
    """The options; `--quick` only changes defaults."""
    parser = argparse.ArgumentParser(prog="wan.sh", description=__doc__)
    add = parser.add_argument
    for name, text in EXPERIMENTS.items():
        add(f"--{name}", dest="experiments", action="append_const", const=name, help=text)
    add("--all", dest="experiments", action="store_const", const=list(EXPERIMENTS), help="all of these")
    add("--profiles", type=names, metavar="LIST", help="links, with commas between them (all of `flwr-emu profiles`)")
    known = "quic-cubic, grpc-default-bbr, flower-cubic, flower-bbr, too"
    add("--transports", type=_transports, default=TRANSPORTS, metavar="LIST", help=f"({TRANSPORTS}); {known}")
    add("--directions", type=_directions, metavar="LIST", help="(up,down)")
    add("--pairs", type=_pairs, default=fairness.PAIRS, metavar="LIST", help=f"of --fairness ({fairness.PAIRS})")
    add("--seeds", type=positive, metavar="N", help="runs of each kind, with the seeds from 1 on (5; quick 3)")
    add("--megabytes", type=positive, metavar="MB", help="moved in a run (6 s at the rate of the link, 84 at least)")
    add("--quick", action="store_true", help=f"{QUICK_PROFILES}, up only, {QUICK_MEGABYTES} MB, 3 seeds")
    add("--chrt", action=argparse.BooleanOptionalAction, default=True, help="ends under SCHED_FIFO")
    add_results(parser)
    add_resume(parser)
    options = parser.parse_args(arguments)
    options.experiments = options.experiments or ["matrix"]
    options.emulator, options.link = program("FLWR_EMU_BIN", "flwr-emu"), program("FLWR_LINK_BIN", "flwr-link")
    quick = options.quick
    options.profiles = options.profiles or (names(QUICK_PROFILES) if quick else None)
    options.directions = options.directions or (["up"] if quick else ["up", "down"])
    options.megabytes = options.megabytes or (QUICK_MEGABYTES if quick else None)
    options.seeds = range(1, 1 + (options.seeds or (3 if quick else 5)))
    options.flower_python = flower_python(parser, options.transports)
    if options.resume and not options.json:
        parser.error("--resume needs the --json FILE of the run that was interrupted")
    for path in (options.emulator, options.link):
        if not os.access(path, os.X_OK):
            parser.error(f"{path} is not there: `bash bench/wan.sh` builds it")
    if options.chrt and not linkrun.can_prioritize():
        print("without root and chrt the ends run at normal priority", file=sys.stderr)
        options.chrt = False
    return options


def program(variable, name):
    """The path of one of our programs."""
    return os.environ.get(variable) or str(ROOT / "target" / "release" / name)


def flower_python(parser, transports):
    """The Python that has stock Flower, if it is asked for."""
    if all(one.program != "flower" for one in transports):
        return None
    python = Path(os.environ.get("FLWR_VENV") or ROOT / "target" / "venv-flwr-1.22", "bin", "python")
    if not os.access(python, os.X_OK):
        parser.error(f"{python} is not there: `bash bench/wan.sh` makes an environment with stock Flower")
    return str(python)


def _transports(text):
    try:
        return [linkrun.Transport.parse(label) for label in names(text)]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _pairs(text):
    try:
        return [fairness.pair(both) for both in names(text)]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _directions(text):
    directions = names(text)
    if not directions or set(directions) - {"up", "down"}:
        raise argparse.ArgumentTypeError(f"{text!r} is not up, down or both")
    return directions


if __name__ == "__main__":
    sys.exit(main())

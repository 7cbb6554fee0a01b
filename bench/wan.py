#!/usr/bin/env python3
"""Measures transfers over the emulated link: QUIC beside gRPC and plain TLS; `bash bench/wan.sh` builds and runs it."""

import argparse
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fedbench import linkreport, linkrun, machine
from fedbench.flags import add_results, names, positive
from fedbench.wan import Link, Unable

ROOT = Path(__file__).resolve().parents[1]
TRANSPORTS = "quic,grpc-cubic,grpc-bbr,tls-cubic,tls-bbr"
QUICK_PROFILES, QUICK_MEGABYTES = "wan-20-0.1,wan-50-0.5", 30
SECONDS_MAX = 25
SECONDS_OF_RATE = 6
CONTROL_PROFILE, CONTROL_MEGABYTES, CONTROL_PERIOD_MS = "wan-50-0.5", 200, 50
CONTROL_SECONDS_MAX = 60
TTFB_PROFILE, TTFB_RUNS = "wan-100-1", 7
NO_LOSS = ("--loss-percent", 0)


def main():
    """Exit status: 0 done, 1 failed or (with --check) a target was missed, 77 no link here, 130 interrupted."""
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    facts = machine.facts(options.link, packages=())
    begin, ticks, results = time.monotonic(), machine.busy_ticks(), {}
    try:
        with tempfile.TemporaryDirectory(prefix="flwr-link-") as certs:
            subprocess.run([options.link, "certs", certs], check=True)
            programs = linkrun.Programs(options.emulator, options.link, certs, options.chrt)
            experiment(options, programs, results)
    except Unable as error:
        print(f"skipped: {error}", file=sys.stderr)
        return Link.UNABLE
    except KeyboardInterrupt:
        print("interrupted; everything that was started has been ended", file=sys.stderr)
        return 130
    except (linkrun.Failed, RuntimeError, OSError, subprocess.SubprocessError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    machine.add_load(facts, ticks)
    return finish(options, facts, time.monotonic() - begin, results)


def experiment(options, programs, results):
    """Fills `results` with samples, a list for each experiment."""
    if options.control:
        control(options, programs, results.setdefault("control", []))
    if options.ttfb:
        ttfb(options, programs, results.setdefault("ttfb", []))
    if not (options.control or options.ttfb):
        matrix(options, programs, results.setdefault("matrix", []))


def matrix(options, programs, samples):
    """Every profile, direction and transport, once for each seed."""
    listed = subprocess.run([programs.emulator, "profiles"], check=True, capture_output=True).stdout
    profiles = json.loads(listed)
    for seed in options.seeds:
        for profile in options.profiles or list(profiles):
            megabytes = options.megabytes or size(profiles[profile]["rate_mbit"])
            for direction in options.directions:
                flags = linkrun.transfer_flags(direction, megabytes, SECONDS_MAX)
                for transport in in_turn(options.transports, seed):
                    sample = linkrun.measure(programs, profile, transport, seed, flags)
                    samples.append(linkrun.judge(sample, direction))
                    share, sent = sample["goodput_share"], sample["sent_ratio"]
                    say(sample, f"{direction:4} {share:.3f} of the link, {sent:.2f} sent / useful")


def control(options, programs, samples):
    """Small calls beside an upload, on the connection of the upload."""
    flags = linkrun.transfer_flags("up", options.megabytes or CONTROL_MEGABYTES, CONTROL_SECONDS_MAX)
    flags += ["--control-period-ms", CONTROL_PERIOD_MS]
    for seed in options.seeds:
        for transport in in_turn([one for one in options.transports if one.program != "tls"], seed):
            sample = linkrun.measure(programs, CONTROL_PROFILE, transport, seed, flags, NO_LOSS)
            samples.append(sample)
            loaded = sample["client"]["control"]["loaded"]
            say(sample, f"p50 {loaded['p50_ms']:.0f} ms, p99 {loaded['p99_ms']:.0f} ms")


def ttfb(options, programs, samples):
    """New connections; nothing is transferred."""
    for seed in range(1, TTFB_RUNS + 1):
        for transport in in_turn(options.transports, seed):
            flags = ["--direction", "up", "--objects", 0]
            sample = linkrun.measure(programs, TTFB_PROFILE, transport, seed, flags, NO_LOSS)
            samples.append(sample)
            say(sample, f"{sample['client']['ttfb_ms']:.1f} ms")


def finish(options, facts, seconds, results):
    """Prints and writes; returns the status."""
    command = shlex.join(["bench/wan.sh", *sys.argv[1:]])
    cells, rows, tables = [], [], []
    if "matrix" in results:
        cells = linkreport.summarize(results["matrix"])
        tables.append(linkreport.cells_table(cells))
        rows += linkreport.targets(cells, facts["cpus"])
    if "control" in results:
        tables.append(linkreport.control_table(results["control"]))
        rows += linkreport.control_targets(results["control"])
    if "ttfb" in results:
        tables.append(linkreport.ttfb_table(results["ttfb"]))
        rows += linkreport.ttfb_targets(results["ttfb"])
    whole = {"command": command, "seconds": seconds, "machine": facts, "cells": cells, "targets": rows, "samples": results}
    return linkreport.write(options, whole, tables)


def size(rate_mbit):
    """Megabytes that take about six seconds."""
    return math.ceil(rate_mbit * SECONDS_OF_RATE / 80) * 10


def in_turn(transports, seed):
    """Another one begins each time, so that none profits from its place."""
    first = seed % len(transports)
    return transports[first:] + transports[:first]


def say(sample, text):
    """One sample while the run is going on."""
    notes = ["CAP"] if sample.get("capped") else []
    notes += [f"{sample['repeats']} repeats"] if sample["repeats"] else []
    notes += [f"load {sample['load_average']:.1f}", *sample["faults"]]
    what = f"{sample['profile']:16} seed {sample['seed']} {sample['transport']:10}"
    print(f"  {what} {text}; {', '.join(notes)}", flush=True)


def parse(arguments):
    """The options; `--quick` only changes defaults."""
    parser = argparse.ArgumentParser(prog="wan.sh", description=__doc__)
    add = parser.add_argument
    add("--profiles", type=names, metavar="LIST", help="links, with commas between them (all of `flwr-emu profiles`)")
    add("--transports", type=_transports, default=TRANSPORTS, metavar="LIST", help=f"({TRANSPORTS}); quic-cubic, too")
    add("--directions", type=_directions, metavar="LIST", help="(up,down)")
    add("--seeds", type=positive, metavar="N", help="runs of each kind, with the seeds from 1 on (5; quick 3)")
    add("--megabytes", type=positive, metavar="MB", help="moved in a run (about six seconds at the rate of the link)")
    add("--quick", action="store_true", help=f"{QUICK_PROFILES}, up only, {QUICK_MEGABYTES} MB, 3 seeds")
    add("--control", action="store_true", help="instead: small calls beside a large upload")
    add("--ttfb", action="store_true", help="instead: time to the first answer of a new connection")
    add("--chrt", action=argparse.BooleanOptionalAction, default=True, help="ends under SCHED_FIFO")
    add_results(parser)
    options = parser.parse_args(arguments)
    options.emulator, options.link = program("FLWR_EMU_BIN", "flwr-emu"), program("FLWR_LINK_BIN", "flwr-link")
    quick = options.quick
    options.profiles = options.profiles or (names(QUICK_PROFILES) if quick else None)
    options.directions = options.directions or (["up"] if quick else ["up", "down"])
    options.megabytes = options.megabytes or (QUICK_MEGABYTES if quick else None)
    options.seeds = range(1, 1 + (options.seeds or (3 if quick else 5)))
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


def _transports(text):
    try:
        return [linkrun.Transport.parse(label) for label in names(text)]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _directions(text):
    directions = names(text)
    if not directions or set(directions) - {"up", "down"}:
        raise argparse.ArgumentTypeError(f"{text!r} is not up, down or both")
    return directions


if __name__ == "__main__":
    sys.exit(main())

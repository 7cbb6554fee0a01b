"""What is measured over the emulated link, sample by sample."""

import itertools
import json
import math
import subprocess

from . import fairness, linkreport, linkrun, migration

SECONDS_MAX = 25
SECONDS_OF_RATE, MEGABYTES_MIN = 6, 84
CONTROL_PROFILE, CONTROL_MEGABYTES, CONTROL_PERIOD_MS = "wan-50-0.5", 200, 50
CONTROL_SECONDS_MAX = 60
TTFB_PROFILE, TTFB_RUNS = "wan-100-1", 7
NO_LOSS = ("--loss-percent", 0)


def matrix(options, programs, journal):
    """Every profile, direction and transport, once for each seed."""
    listed = subprocess.run([programs.emulator, "profiles"], check=True, capture_output=True).stdout
    profiles = json.loads(listed)
    for seed in options.seeds:
        for profile in options.profiles or list(profiles):
            megabytes = options.megabytes or size(profiles[profile]["rate_mbit"])
            for direction in options.directions:
                flags = linkrun.transfer_flags(direction, megabytes, SECONDS_MAX)
                for transport in in_turn(options.transports, seed):

                    def measure(profile=profile, direction=direction, transport=transport, flags=flags):
                        sample = linkrun.measure(programs, profile, transport, seed, flags)
                        return linkrun.judge(sample, direction)

                    key = [profile, direction, transport.label, seed]
                    sample, is_new = journal.sample("matrix", key, measure)
                    share, sent = sample["goodput_share"], sample["sent_ratio"]
                    say(sample, is_new, f"{direction:4} {share:.3f} of the link, {sent:.2f} sent / useful")


def control(options, programs, journal):
    """Small calls beside an upload, on the connection of the upload."""
    flags = linkrun.transfer_flags("up", options.megabytes or CONTROL_MEGABYTES, CONTROL_SECONDS_MAX)
    flags += ["--control-period-ms", CONTROL_PERIOD_MS]
    able = [one for one in options.transports if one.program in ("quic", "grpc")]
    for seed in options.seeds:
        for transport in in_turn(able, seed):

            def measure(transport=transport):
                return linkrun.measure(programs, CONTROL_PROFILE, transport, seed, flags, NO_LOSS)

            sample, is_new = journal.sample("control", [transport.label, seed], measure)
            loaded = sample["client"]["control"]["loaded"]
            say(sample, is_new, f"p50 {loaded['p50_ms']:.0f} ms, p99 {loaded['p99_ms']:.0f} ms")


def ttfb(options, programs, journal):
    """New connections, and those of a client that was there before; nothing is transferred."""
    flags = ["--direction", "up", "--objects", 0]
    for seed in range(1, TTFB_RUNS + 1):
        for transport in in_turn(options.transports, seed):
            for again in ([], ["--again"]) if transport.program == "quic" else ([],):

                def measure(transport=transport, again=again):
                    sample = linkrun.measure(programs, TTFB_PROFILE, transport, seed, [*flags, *again], NO_LOSS)
                    return {**sample, "transport": transport.label + ("" if not again else linkreport.AGAIN)}

                key = [transport.label, *again, seed]
                sample, is_new = journal.sample("ttfb", key, measure)
                say(sample, is_new, f"{sample['client']['ttfb_ms']:.1f} ms")


def fair(options, programs, journal):
    """Two uploads through one bottleneck."""
    for seed in options.seeds:
        for rtt_ms in fairness.RTTS_MS:
            for both in in_turn(options.pairs, seed):

                def measure(both=both, rtt_ms=rtt_ms):
                    return fairness.measure(programs, both, rtt_ms, seed)

                key = [rtt_ms, "+".join(one.label for one in both), seed]
                sample, is_new = journal.sample("fairness", key, measure)
                shares = " and ".join(f"{flow['share']:.2f}" for flow in sample["flows"])
                say({**sample, "transport": sample["pair"]}, is_new, f"{rtt_ms} ms, {shares} of a fair half")


def migrate(options, programs, journal):
    """Transfers whose address changes."""
    for seed in options.seeds:
        for direction, offline_s in itertools.product(options.directions, migration.OFFLINE_S):
            for transport in [one for one in options.transports if one.program == "quic"]:

                def measure(transport=transport, direction=direction, offline_s=offline_s):
                    return migration.measure(programs, transport, direction, offline_s, seed)

                sample, is_new = journal.sample("migration", [transport.label, direction, offline_s, seed], measure)
                more = f"{sample['gap_ms']:.0f} ms of silence, {sample['gap_rtts']:.1f} round trips more"
                say(sample, is_new, f"{direction:4} {offline_s} s offline, {more}")


def size(rate_mbit):
    """Megabytes that take about six seconds, and not less than eight objects of 10 MiB."""
    return max(MEGABYTES_MIN, math.ceil(rate_mbit * SECONDS_OF_RATE / 80) * 10)


def in_turn(transports, seed):
    """Another one begins each time, so that none profits from its place."""
    first = seed % len(transports)
    return transports[first:] + transports[:first]


def say(sample, is_new, text):
    """One sample while the run is going on."""
    notes = ["CAP"] if sample.get("capped") else []
    notes += [f"{sample['repeats']} repeats"] if sample["repeats"] else []
    notes += [f"load {sample['load_average']:.1f}", *sample["faults"]] if is_new else ["from the file"]
    what = f"{sample['profile']:16} seed {sample['seed']} {sample['transport']:10}"
    print(f"  {what} {text}; {', '.join(notes)}", flush=True)


ALL = {"matrix": matrix, "control": control, "ttfb": ttfb, "fairness": fair, "migration": migrate}

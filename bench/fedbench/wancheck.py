"""Holds the emulated link against its profiles, with ping and iperf3; the command is `bench/wan-check.sh`."""

import argparse
import contextlib
import json
import math
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys

from .wan import Link, Unable

PINGS = 50
SEGMENT_BYTES, SEGMENTS, GSO_SENDS = 1400, 10, 50
UDP_BYTES, UDP_HEADERS, TCP_SHARE = 1448, 28, 1448 / 1500
UDP_SEGMENT = 103
IPERF_SLACK_S = 30
CPU_BOUND_MBIT = 200


def main():
    """Status 1 if a link is not as it was asked for, 77 if there can be none."""
    options = _options()
    profiles = json.loads(subprocess.run([options.binary, "profiles"], check=True, capture_output=True).stdout)
    names = options.profiles.split(",") if options.profiles else list(profiles)
    results = {}
    try:
        for name in names:
            results[name] = check(options, name)
            print(f"{name}: {', '.join(results[name]['off']) or 'as asked'}", file=sys.stderr)
    except Unable as error:
        print(f"skipped: {error}", file=sys.stderr)
        return Link.UNABLE
    print(table(results))
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=2)
    return 1 if any(result["off"] for result in results.values()) else 0


def check(options, name):
    """Everything about one profile; each measurement has a link of its own."""
    result = {}
    with Link(name, options.seed, options.binary) as link:
        result["asked"] = link.ready["profile"]
        if shutil.which("ping"):
            result["ping"] = ping(link)
        before = link.stats()["directions"]["forward"]["packets_in"]
        gso(link)
        result["segments"] = link.stats()["directions"]["forward"]["packets_in"] - before
        result["link"] = [_link(link.close())]
    if shutil.which("iperf3"):
        with Link(name, options.seed, options.binary) as link:
            rate_mbit = result["asked"]["rate_mbit"]
            result["udp"] = udp(link, options.seconds, rate_mbit)
            final = link.close()
            result["link"].append(_link(final))
            result["lost_percent"], result["lost_error"] = _lost(final["directions"]["forward"])
        for algorithm in ("bbr", "cubic"):
            with Link(name, options.seed, options.binary, ["--tcp-congestion", algorithm]) as link:
                result[algorithm] = tcp(link, options.seconds)
                result["link"].append(_link(link.close()))
    result["off"] = _off(result)
    return result


def ping(link):
    """Round trips in milliseconds and how many came back."""
    argv = link.command(0, ["ping", "-n", "-c", PINGS, "-i", 0.05, "-W", 2, link.addresses[1]])
    output = subprocess.run(argv, capture_output=True, text=True).stdout
    times = sorted(float(time) for time in re.findall(r"time=([0-9.]+)", output))
    if not times:
        raise RuntimeError(f"no ping came back: {output}")
    return {"min": times[0], "median": times[len(times) // 2], "max": times[-1], "received": len(times)}


def gso(link):
    """Datagrams that the kernel must cut, since the device does not."""
    code = (
        "import socket, sys, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"s.setsockopt({socket.IPPROTO_UDP}, {UDP_SEGMENT}, {SEGMENT_BYTES})\n"
        f"for _ in range({GSO_SENDS}): s.sendto(bytes({SEGMENT_BYTES * SEGMENTS}), (sys.argv[1], 9)); time.sleep(0.01)"
    )
    subprocess.run(link.command(0, [sys.executable, "-c", code, link.addresses[1]]), check=True)


def udp(link, seconds, rate_mbit):
    """Megabits a second of IP packets that arrive when a fifth too much is sent."""
    flags = ["-u", "-b", f"{rate_mbit * 1.2}M", "-l", UDP_BYTES, "--get-server-output"]
    # The first and the last second are not full: the way is long, and the queue runs empty.
    full = iperf3(link, seconds, flags)["server_output_json"]["intervals"][1:-1]
    goodput = statistics.mean(one["sum"]["bits_per_second"] for one in full) / 1e6
    return goodput * (UDP_BYTES + UDP_HEADERS) / UDP_BYTES


def tcp(link, seconds):
    """Megabits a second that a TCP connection carries after two seconds of start."""
    return iperf3(link, seconds, ["-O", 2])["end"]["sum_received"]["bits_per_second"] / 1e6


def iperf3(link, seconds, arguments):
    """The report of a transfer from side 0 to side 1."""
    with _server(link):
        argv = link.command(0, ["iperf3", "-c", link.addresses[1], "-t", seconds, "-J", *arguments])
        output = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + IPERF_SLACK_S).stdout
    report = json.loads(output)
    if "error" in report:
        raise RuntimeError(f"iperf3: {report['error']}")
    return report


@contextlib.contextmanager
def _server(link):
    argv = link.command(1, ["iperf3", "-s", "-1", "-J"])
    server = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        _wait_for_listener(link)
        yield
    finally:
        server.kill()
        server.wait()


def _wait_for_listener(link):
    listeners = link.command(1, ["sh", "-c", "until ss -ltn | grep -q :5201; do sleep 0.05; done"])
    subprocess.run(listeners, check=True, timeout=10)


def _lost(direction):
    """Percent of what was sent that the loss took, and the standard deviation of it for independent losses."""
    sent = direction["random_drops"] + direction["packets_out"]
    share = direction["random_drops"] / sent
    return share * 100, math.sqrt(share * (1 - share) / sent) * 100


def _link(final):
    """Of the final statistics what must be small."""
    directions = final["directions"].values()
    return {
        "packet_bytes_max": max(one["packet_bytes_max"] for one in directions),
        "lateness_p99_us": max(one["lateness_us"]["p99"] for one in directions),
        "lateness_max_us": max(one["lateness_us"]["max"] for one in directions),
        "write_errors": sum(one["write_errors"] for one in directions),
        "tx_dropped": sum(final["tx_dropped"]),
    }


def _off(result):
    """What is not as it was asked for."""
    asked, off = result["asked"], []
    if "ping" in result and abs(result["ping"]["median"] - asked["rtt_ms"]) > max(0.5, asked["rtt_ms"] * 0.03):
        off.append("rtt")
    if result["segments"] != SEGMENTS * GSO_SENDS:
        off.append("segments")
    if "udp" in result:
        expected = asked["rate_mbit"] * (1 - asked["loss_percent"] / 100)
        # A sender of single datagrams may be too slow for a fast link, and so may this machine.
        carried = max(result["udp"], result["bbr"] / TCP_SHARE)
        if abs(carried / expected - 1) > (0.03 if asked["rate_mbit"] <= CPU_BOUND_MBIT else 0.1):
            off.append("rate")
        # Losses in bursts spread more.
        error = result["lost_error"] * math.sqrt(2 * asked["burst"])
        if abs(result["lost_percent"] - asked["loss_percent"]) > 4 * error:
            off.append("loss")
    if any(one["packet_bytes_max"] > 1500 for one in result["link"]):
        off.append("packets")
    if any(one["tx_dropped"] or one["write_errors"] for one in result["link"]):
        off.append("device")
    return off


def table(results):
    """Measured against asked, as text."""
    asked, measured = ("profile", "rtt ms", "ping ms", "Mbit/s"), ("UDP", "bbr", "cubic")
    rows = [(*asked, *measured, "loss %", "lost %", "max B", "p99 us", "off")]
    for name, result in results.items():
        asked, link = result["asked"], result["link"]
        rows.append(
            (
                name,
                f"{asked['rtt_ms']:g}",
                f"{result['ping']['median']:.2f}" if "ping" in result else "-",
                f"{asked['rate_mbit']:g}",
                *(f"{result[key]:.1f}" if key in result else "-" for key in ("udp", "bbr", "cubic")),
                f"{asked['loss_percent']:g}",
                f"{result['lost_percent']:.2f}" if "lost_percent" in result else "-",
                str(max(one["packet_bytes_max"] for one in link)),
                f"{max(one['lateness_p99_us'] for one in link):.0f}",
                ", ".join(result["off"]) or "-",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def _options():
    parser = argparse.ArgumentParser(prog="wan-check.sh", description=__doc__)
    parser.add_argument("--binary", default="flwr-emu", help="the emulator")
    parser.add_argument("--profiles", help="only these, with commas between them")
    parser.add_argument("--seconds", type=int, default=8, help="length of each transfer")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""What the kernel says about a process and about this machine. Linux only."""

import importlib.metadata
import os
import platform
import re
import subprocess
import threading
import time
from pathlib import Path

STOCK = ("flwr", "grpcio", "protobuf", "cryptography")


def cpu_seconds(pid):
    """User plus system CPU-seconds of one process: all its threads, also ended ones, without its children.

    The process CPU clock holds the same sum as utime + stime of /proc/PID/stat, but in
    nanoseconds instead of ticks of 10 ms; the file is the fallback.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid):
    """(resident bytes now, peak resident bytes since the start) of one process."""
    status = Path(f"/proc/{pid}/status").read_text()
    now, peak = (re.search(rf"^{key}:\s+(\d+) kB", status, re.M) for key in ("VmRSS", "VmHWM"))
    return int(now[1]) * 1024, int(peak[1]) * 1024


class MemorySampler:
    """Samples the resident memory of one process every 20 ms in a thread of its own."""

    PERIOD_S = 0.02

    def __init__(self, pid):
        self.samples = []
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def peak(self):
        """(time.monotonic() of it, bytes) of the largest sample."""
        return max(self.samples, key=lambda sample: sample[1])

    def _run(self):
        while not self._stop.wait(self.PERIOD_S):
            try:
                self.samples.append((time.monotonic(), memory_bytes(self._pid)[0]))
            except (OSError, TypeError):
                return


def load_average():
    """The load of the last minute."""
    return os.getloadavg()[0]


def busy_ticks():
    """(all, stolen, idle) clock ticks of all CPUs since boot, from /proc/stat."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(fields), fields[7], fields[3] + fields[4]


def add_load(known, ticks_before):
    """Adds to the facts how busy the machine was since `busy_ticks()` was `ticks_before`."""
    total, stolen, idle = (now - then for now, then in zip(busy_ticks(), ticks_before))
    known["load_average_at_end"] = load_average()
    known["busy_percent"] = 100 * (1 - idle / max(total, 1))
    known["stolen_percent"] = 100 * stolen / max(total, 1)


def facts(subject, packages=STOCK):
    """The machine and the versions, as a dict of strings and numbers; `subject` is our program or None."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    memory = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cpus": os.cpu_count(),
        "memory_gb": round(int(memory[1]) * 1024 / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": versions,
        "subject": _output([str(subject), "--version"]) if subject else "stock (self-comparison)",
        "commit": _output(["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]),
        "load_average_at_start": load_average(),
    }


def text(known, command, seconds):
    """The facts that matter without stock Flower, as Markdown."""
    load = f"{known['load_average_at_start']:.2f} at the start, {known['load_average_at_end']:.2f} at the end"
    return "\n".join(
        [
            f"- machine: {known['cpus']} x {known['cpu']}, {known['memory_gb']} GB, kernel {known['kernel']}",
            f"- load: {load}; {known['busy_percent']:.0f} % busy, {known['stolen_percent']:.1f} % stolen",
            f"- commit: {known['commit']}",
            f"- command: `{command}` ({seconds:.0f} s)",
        ]
    )


def _output(argv):
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 and done.stdout.strip() else "unknown"

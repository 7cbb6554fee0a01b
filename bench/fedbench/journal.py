"""The samples of a long measurement, on disk after each one, so that an interruption costs only one."""

import json
import time

from . import linkreport

SAME = ("cpu", "cpus", "memory_gb", "kernel", "subject", "commit")
"""What has to be the same of a machine and a program whose samples stand in one table."""


class Mismatch(Exception):
    """The file holds samples of something else."""


class Journal:
    """`results[experiment]` is a list of samples, in the order in which they were taken."""

    def __init__(self, path, command, facts, resume=False):
        """`path` may be None: then nothing is written. Raises Mismatch."""
        self.results, self._seconds, self._begin = {}, 0, time.monotonic()
        self._path, self._command, self.facts = path, command, facts
        if resume and path.exists():
            self._load(json.loads(path.read_text()))

    def sample(self, experiment, key, measure):
        """The sample with this key, from the file or from `measure()`; and whether it is new."""
        samples = self.results.setdefault(experiment, [])
        for known in samples:
            if known["key"] == key:
                return known, False
        sample = {"key": key, **measure()}
        samples.append(sample)
        if self._path:
            linkreport.save(self._path, {**self.head(), "samples": self.results})
        return sample, True

    def head(self):
        """What the results say about themselves."""
        seconds = self._seconds + time.monotonic() - self._begin
        return {"command": self._command, "seconds": seconds, "machine": self.facts}

    def _load(self, whole):
        known = whole["machine"]
        wrong = [name for name in SAME if known.get(name) != self.facts[name]]
        wrong += ["command"] if whole["command"] != self._command else []
        if wrong:
            raise Mismatch(f"{self._path} has another {', '.join(wrong)}: leave out --resume, or give another file")
        self.results, self._seconds = whole["samples"], whole["seconds"]
        self.facts["load_average_at_start"] = known["load_average_at_start"]

"""A real Prometheus that watches daemons under test, with what ``docker/monitoring`` ships."""

from __future__ import annotations

import json
import re
import shutil
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Optional

import pytest

from harness import REPOSITORY, START_SECONDS, Process, free_port, wait_for

MONITORING = REPOSITORY / "docker" / "monitoring"
NEEDS_PROMETHEUS = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="prometheus and promtool are missing: apt-get install prometheus",
)

# What makes the shipped alerts quick enough for a test, which each have to be found: nothing has to last, rates
# are of the last ten seconds, and five seconds are long. `promtool test rules` tests the durations as shipped.
HASTE = [
    (r"for: \d+m\b", "for: 1s"),
    (r"\[\d+m\]", "[10s]"),
    (r"standstill_seconds > 1800\b", "standstill_seconds > 5"),
    (r'age_seconds\{state="ready"\} > 600\b', 'age_seconds{state="ready"} > 5'),
]

Labels = dict[str, str]


def hasty_rules() -> str:
    """The shipped alerts, made quick."""
    rules = (MONITORING / "alerts.yml").read_text(encoding="utf-8")
    for pattern, replacement in HASTE:
        rules, count = re.subn(pattern, replacement, rules)
        assert count > 0, pattern
    return rules


def fetch(url: str, timeout: float = 10) -> str:
    """What is answered to a GET."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=timeout) as answer:
        return str(answer.read().decode())


class Prometheus(Process):
    """Scrapes ``targets`` (job to addresses) every second; ``rules`` are those of its alerts."""

    def __init__(
        self, directory: Path, targets: dict[str, list[str]], rules: Optional[str] = None
    ) -> None:
        folder = directory / "prometheus"
        folder.mkdir(parents=True)
        (folder / "alerts.yml").write_text(rules or "groups: []\n", encoding="utf-8")
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": addresses}]}
                for job, addresses in targets.items()
            ],
        }
        # JSON is YAML.
        (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
        self.address = f"127.0.0.1:{free_port()}"
        argv = ["prometheus", f"--config.file={folder / 'prometheus.yml'}"]
        argv += [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={self.address}"]
        super().__init__("prometheus", argv, directory)
        wait_for(self._is_ready, START_SECONDS, f"Prometheus to be ready\n{self.tail()}")

    def _is_ready(self) -> bool:
        assert self.running, self.tail()
        try:
            return bool(fetch(f"http://{self.address}/-/ready"))
        except OSError:
            return False

    def query(self, expression: str) -> list[tuple[Labels, float]]:
        """The samples that an expression gives now."""
        query = urllib.parse.urlencode({"query": expression})
        answer = json.loads(fetch(f"http://{self.address}/api/v1/query?{query}"))
        assert answer["status"] == "success", answer
        results: list[dict[str, Any]] = answer["data"]["result"]
        return [(result["metric"], float(result["value"][1])) for result in results]

    def value(self, expression: str) -> Optional[float]:
        """The only sample that an expression gives now; nothing if there is none."""
        samples = self.query(expression)
        assert len(samples) <= 1, samples
        return samples[0][1] if samples else None

    def wait_value(self, expression: str, value: float, timeout: float = 30) -> None:
        """Waits until an expression has this value."""
        last: list[Optional[float]] = [None]

        def reached() -> bool:
            last[0] = self.value(expression)
            return last[0] == value

        try:
            wait_for(reached, timeout, f"{expression} to be {value}", interval=0.3)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {last[0]}") from None

    def firing(self) -> list[Labels]:
        """The labels of the alerts that fire now; ``alertname`` is one of them."""
        answer = json.loads(fetch(f"http://{self.address}/api/v1/alerts"))
        alerts = answer["data"]["alerts"]
        return [alert["labels"] for alert in alerts if alert["state"] == "firing"]

    def wait_firing(self, name: str, timeout: float = 30, **labels: str) -> None:
        """Waits until the alert fires with these labels."""
        self._wait_alert(True, name, timeout, labels)

    def wait_quiet(self, name: str, timeout: float = 30, **labels: str) -> None:
        """Waits until the alert does not fire with these labels."""
        self._wait_alert(False, name, timeout, labels)

    def _wait_alert(self, fires: bool, name: str, timeout: float, labels: Labels) -> None:
        wanted = {"alertname": name, **labels}

        def reached() -> bool:
            return any(wanted.items() <= alert.items() for alert in self.firing()) == fires

        try:
            wait_for(reached, timeout, f"{wanted} to {'fire' if fires else 'end'}", interval=0.3)
        except AssertionError as error:
            raise AssertionError(f"{error}; what fires: {self.firing()}") from None

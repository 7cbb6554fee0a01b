"""A deployment as an operator has it: `docker/` and `certificates/` side by side, in a folder of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Optional

import engine

SERVICES = (
    "superlink",
    "superexec-serverapp",
    "supernode-1",
    "superexec-clientapp-1",
    "supernode-2",
    "superexec-clientapp-2",
)
VOLUMES = (
    "flower-superlink-data",
    "flower-superlink-logs",
    "flower-model-outputs",
    "flower-supernode1-data",
    "flower-supernode1-cache",
    "flower-supernode2-data",
    "flower-supernode2-cache",
)


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """What `condition` gives once it is something; fails after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"gave up after {seconds} s: {what}"
        time.sleep(0.2)


def typed(command: str) -> str:
    """A command with `docker compose` as Compose is called here."""
    return re.sub(r"\bdocker compose\b", " ".join(engine.compose()), command)


class Deployment:
    """Copies of `docker/` and `certificates/`, and what an operator types there."""

    def __init__(self, folder: Path, binary: Path, flwr: Path) -> None:
        self.root = folder
        self.docker = folder / "docker"
        self.certificates = folder / "certificates"
        ignored = shutil.ignore_patterns("prebuilt", "docker-compose.override.yml", "__pycache__")
        shutil.copytree(engine.REPOSITORY / "docker", self.docker, ignore=ignored)
        shutil.copytree(engine.REPOSITORY / "certificates" / "scripts", self.certificates / "scripts")
        shutil.copy(engine.REPOSITORY / ".dockerignore", folder)
        self.environment = {
            **os.environ,
            "FLWR_QUIC_BINARY": str(binary),
            "PATH": f"{flwr}:{os.environ['PATH']}",
            "FLWR_HOME": str(folder / "flwr-home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "no_grpc_proxy": "127.0.0.1,localhost",
            "COLUMNS": "250",
            "PYTHONUNBUFFERED": "1",
        }
        for name in ("COMPOSE_FILE", "TRANSPORT", "NUM_PARTITIONS", "CONTROL_PUBLISH", "FLEET_PUBLISH"):
            self.environment.pop(name, None)

    def try_shell(
        self, command: str, folder: Optional[Path] = None, seconds: float = 300, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Types a command into a shell, with `docker compose` as Compose is called here."""
        return subprocess.run(
            ["bash", "-c", typed(command)],
            cwd=folder or self.docker,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )

    def shell(self, command: str, folder: Optional[Path] = None, seconds: float = 300, **environment: str) -> str:
        """As [`try_shell`], and gives the output of a command that succeeded."""
        done = self.try_shell(command, folder, seconds, **environment)
        assert done.returncode == 0, f"{command}: status {done.returncode}\n{done.stdout[-5000:]}"
        return done.stdout

    def build(self, *services: str, compose_file: str = "docker-compose.yml") -> None:
        """The images, as start-secure.sh builds them."""
        steps = "source scripts/common.sh; source scripts/images.sh; require_engine; build_images"
        self.shell(f"{steps} {' '.join(services)}", seconds=900, COMPOSE_FILE=compose_file)
        engine.keep_layers()

    def follow(self, command: str, said: str) -> None:
        """Types a command that goes on until it is ended; ends it once it has said something."""
        log = self.root / "followed"
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {typed(command)}"],
                cwd=self.docker,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_for(lambda: said in log.read_text(errors="replace"), 60, f"{command} says {said}")
            assert process.poll() is None, "it goes on"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)

    def make_certificates(self, clients: int = 2) -> None:
        """What the document says where certificates are not found."""
        scripts = ["generate_ca.sh", "generate_server_cert.sh"]
        scripts += [f"generate_client_cert.sh {number + 1}" for number in range(clients)]
        for script in scripts:
            self.shell(f"./scripts/setup/{script}", self.certificates)

    def run(self, federation: str = "local-deployment", config: str = "") -> "Run":
        """`flwr run .` from the host; gives the run once it is submitted."""
        flag = f" --run-config '{config}'" if config else ""
        said = self.shell(f"flwr run . {federation}{flag}")
        return Run(self, re.search(r"started run (\d+)", said).group(1), federation)

    def inspect(self, what: str) -> dict[str, Any]:
        """What Docker knows of something."""
        return json.loads(self.shell(f"docker inspect {what}"))[0]

    def health(self, container: str) -> str:
        """healthy, unhealthy or starting; nothing if there is no such container."""
        asked = f"docker inspect {container} --format='{{{{.State.Health.Status}}}}'"
        done = self.try_shell(asked)
        return done.stdout.strip() if done.returncode == 0 else ""

    def wait_healthy(self, *containers: str, seconds: float = 60) -> None:
        """Waits until all of them are."""
        for container in containers:
            wait_for(lambda: self.health(container) == "healthy", seconds, f"{container} is healthy")


class Run:
    """A run of the app in `docker/`."""

    def __init__(self, deployment: Deployment, run_id: str, federation: str = "local-deployment") -> None:
        self.deployment = deployment
        self.id = run_id
        self.federation = federation

    @property
    def status(self) -> str:
        """Such as `running` or `finished:completed`."""
        asked = f"flwr ls . {self.federation} --run-id {self.id} --format json"
        done = self.deployment.try_shell(asked)
        found = re.search(r'"status":\s*"([a-z:]+)"', done.stdout)
        return found.group(1) if found else ""

    def wait(self, seconds: float = 120) -> None:
        """Waits for its end, which must be a good one."""
        status = wait_for(lambda: re.match("finished.*", self.status), seconds, f"run {self.id} ends")
        log = self.deployment.try_shell(f"timeout 20 flwr log {self.id} . {self.federation} --show").stdout
        assert status.group() == "finished:completed", log[-4000:]

    def wait_round(self, number: int, seconds: float = 90) -> None:
        """Waits until the ServerApp has begun a round."""
        mark = f"[ROUND {number}/"
        logs = "docker logs flower-superexec-serverapp"
        wait_for(lambda: mark in self.deployment.shell(logs), seconds, f"round {number} of run {self.id}")

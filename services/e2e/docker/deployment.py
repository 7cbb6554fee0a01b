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
CONTAINERS = tuple(f"flower-{service}" for service in SERVICES)
VOLUMES = (
    "flower-superlink-data",
    "flower-superlink-logs",
    "flower-model-outputs",
    "flower-supernode1-data",
    "flower-supernode1-cache",
    "flower-supernode2-data",
    "flower-supernode2-cache",
)


# An operator's docker-compose.override.yml, as README.md has it: training data, and checks that find out sooner.
OVERRIDE = """
services:
  superexec-serverapp:
    healthcheck: {interval: 2s}
  supernode-1:
    healthcheck: {interval: 2s}
  superexec-clientapp-1:
    healthcheck: {interval: 2s}
    volumes:
      - ./line:/app/patients:ro
  supernode-2:
    healthcheck: {interval: 2s}
  superexec-clientapp-2:
    healthcheck: {interval: 2s}
"""


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """What `condition` gives once it is something; fails after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"gave up after {seconds} s: {what}"
        time.sleep(0.2)


def run(command: str) -> str:
    """The output of a command of the shell, as it is."""
    return subprocess.run(command, shell=True, stdout=subprocess.PIPE, text=True, check=True).stdout


def typed(command: str) -> str:
    """A command with `docker compose` as Compose is called here."""
    return re.sub(r"\bdocker compose\b", " ".join(engine.compose()), command)


class Deployment:
    """Copies of `docker/` and `certificates/`, and what an operator types there."""

    def __init__(self, folder: Path, binary: Path, flwr: Path, user: Optional[int] = None) -> None:
        folder.chmod(0o755)
        self.root = folder
        self.docker = folder / "docker"
        self.certificates = folder / "certificates"
        self._user = user
        self._started: Optional[dict[str, str]] = None
        ignored = shutil.ignore_patterns("prebuilt", "docker-compose.nodes.yml", "docker-compose.override.yml", "__pycache__")
        shutil.copytree(engine.REPOSITORY / "docker", self.docker, ignore=ignored)
        shutil.copytree(engine.REPOSITORY / "certificates" / "scripts", self.certificates / "scripts")
        shutil.copy(engine.REPOSITORY / ".dockerignore", folder)
        (self.docker / "docker-compose.override.yml").write_text(OVERRIDE)
        self.binary = Path(shutil.copy(binary, folder / "flwr-quic-under-test"))
        self.environment = {
            **os.environ,
            "FLWR_QUIC_BINARY": str(self.binary),
            "PATH": f"{flwr}:{os.environ['PATH']}",
            "FLWR_HOME": str(folder / "flwr-home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "no_grpc_proxy": "127.0.0.1,localhost",
            "COLUMNS": "250",
            "PYTHONUNBUFFERED": "1",
        }
        for name in ("COMPOSE_FILE", "SECRETS_DIR", "TRANSPORT", "NUM_PARTITIONS", "CONTROL_PUBLISH", "FLEET_PUBLISH"):
            self.environment.pop(name, None)
        self._as: dict[str, Any] = {}
        if user is not None:
            self.environment["HOME"] = str(folder)
            self._as = {"user": user, "group": user, "extra_groups": [engine.socket_group()]}
            self.give_to_user()

    def as_root(self, command: str, certificates: Optional[Path] = None) -> str:
        """Types a command about files that belong to the containers, also where this is not root."""
        steps = f"source ../certificates/scripts/setup/common.sh; as_root {command}"
        return self.shell(steps, FLWR_CERTIFICATES=str(certificates or self.certificates))

    def give_to_user(self) -> None:
        """Everything here belongs to whom commands are typed by, if that is somebody else."""
        if self._user is None:
            return
        subprocess.run(["chown", "-R", f"{self._user}:{self._user}", self.root], check=True)

    def try_shell(
        self, command: str, folder: Optional[Path] = None, seconds: float = 300, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Types a command into a shell, with `docker compose` as Compose is called here."""
        return subprocess.run(
            ["bash", "-c", typed(command)],
            cwd=folder or self.docker,
            env={**self.environment, **environment},
            **self._as,
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

    def start(self, **environment: str) -> str:
        """Has the federation run as that environment says, which `shell` has from then on: the one that runs if that is it,
        or one without any data. Gives what start-secure.sh said."""
        if self._started == environment:
            return ""
        self.stop()
        self._started = environment
        self.environment.update(environment)
        return self.shell("./scripts/start-secure.sh --no-build", seconds=900)

    def stop(self, command: str = "./scripts/stop-secure.sh --volumes") -> None:
        """Ends what runs, and its data."""
        if self._started is not None:
            self.shell(command)
            for name in self._started:
                del self.environment[name]
            self._started = None

    def runs(self, authority: str = "../certificates/ca/ca.crt") -> dict[str, str]:
        """The status of each run, such as `running` or `finished:completed`."""
        said = self.shell(f"$FLWR_QUIC_BINARY status --format json --root-certificates {authority}")
        return {run["id"]: run["status"] for run in json.loads(said)["runs"]}

    def follow(self, command: str, said: str, end: signal.Signals = signal.SIGTERM) -> None:
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
            os.killpg(process.pid, end)
            process.wait(40)

    def make_certificates(self, clients: int = 2) -> None:
        """What the document says where certificates are not found."""
        scripts = ["generate_ca.sh", "generate_server_cert.sh"]
        scripts += [f"generate_client_cert.sh {number + 1}" for number in range(clients)]
        for script in scripts:
            self.shell(f"./scripts/setup/{script}", self.certificates)

    def run(self, federation: str = "local-deployment", config: str = "") -> "Run":
        """`flwr run .` from the host; gives the run once it is submitted."""
        flag = f" --run-config '{config}'" if config else ""
        begun = time.time()
        said = self.shell(f"flwr run . {federation}{flag}")
        return Run(self, re.search(r"started run (\d+)", said).group(1), begun)

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
    """A run of the app in `docker/`, which was submitted after a moment."""

    def __init__(self, deployment: Deployment, run_id: str, begun: float) -> None:
        self.deployment = deployment
        self.id = run_id
        self.begun = begun

    def wait(self, seconds: float = 120, authority: str = "../certificates/ca/ca.crt") -> None:
        """Waits for its end, which must be a good one."""
        status = wait_for(
            lambda: re.match("finished.*", self.deployment.runs(authority).get(self.id, "")),
            seconds,
            f"run {self.id} ends",
        )
        if status.group() != "finished:completed":
            raise AssertionError(f"{status.group()}: {self.deployment.try_shell('docker logs flower-superexec-serverapp').stdout[-4000:]}")

    def wait_round(self, number: int, seconds: float = 90) -> None:
        """Waits until the ServerApp has begun a round."""
        mark = f"[ROUND {number}/"
        logs = f"docker logs --since {self.begun:.3f} flower-superexec-serverapp"
        wait_for(lambda: mark in self.deployment.shell(logs), seconds, f"round {number} of run {self.id}")

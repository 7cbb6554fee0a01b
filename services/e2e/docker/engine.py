"""A Docker engine for the tests: the one of this machine, or one that is started for them alone.

Where none answers and this is root on Debian, `docker.io`, `docker-compose` and `debootstrap` are installed and an engine
is started with a socket and a data folder of its own (`target/docker`, which keeps built images for the next time).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Optional

REPOSITORY = Path(__file__).resolve().parents[3]
DATA = REPOSITORY / "target" / "docker"
BASE_IMAGE = "debian:bookworm-slim"


class Unavailable(Exception):
    """There is no engine, and why."""


class Engine:
    """Something that answers `docker`; ended with the tests if it was started for them."""

    own = False

    def __init__(self) -> None:
        self._daemon: Optional[subprocess.Popen[bytes]] = None
        self._run = ""
        try:
            if not answers():
                self._start()
            if not compose():
                _install("docker-compose")
            ensure_base_image()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        if os.geteuid() != 0:
            raise Unavailable("no engine answers `docker version`, and starting one takes root")
        if shutil.which("dockerd") is None:
            _install("docker.io", "docker-compose")
            if answers():
                return
        DATA.mkdir(parents=True, exist_ok=True)
        # The names of sockets are short.
        self._run = tempfile.mkdtemp(prefix="flwr-docker-")
        # Other users reach the socket, if they are of its group.
        os.chmod(self._run, 0o711)
        socket = f"unix://{self._run}/docker.sock"
        with (DATA / "dockerd.log").open("wb") as log:
            self._daemon = subprocess.Popen(
                ["dockerd", "--host", socket, "--data-root", DATA / "data"]
                + ["--exec-root", f"{self._run}/exec", "--pidfile", f"{self._run}/docker.pid"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        os.environ["DOCKER_HOST"] = socket
        Engine.own = True
        end = time.monotonic() + 60
        while not answers():
            if self._daemon.poll() is not None or time.monotonic() > end:
                tail = (DATA / "dockerd.log").read_text(errors="replace").splitlines()[-3:]
                raise Unavailable(f"dockerd does not run here: {' / '.join(tail)}")
            time.sleep(0.2)

    def close(self) -> None:
        """End the engine that was started here."""
        if self._daemon is not None:
            if answers():
                _keep_stage()
            self._daemon.terminate()
            try:
                self._daemon.wait(30)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()
            os.environ.pop("DOCKER_HOST", None)
            Engine.own = False
            shutil.rmtree(self._run, ignore_errors=True)


def keep_layers() -> None:
    """Names built images once more where the engine is ours: what they are made of is there for the next build."""
    if not Engine.own:
        return
    for name, image in _images():
        if name.startswith("flwr-quic/"):
            subprocess.run(["docker", "tag", image, name.replace("flwr-quic/", "kept/", 1)], check=True)


def _images() -> list[tuple[str, str]]:
    listed = ["docker", "images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]
    lines = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines()
    return [(name, image) for name, image in map(str.split, lines)]


def _keep_stage() -> None:
    """The same of the stage with Flower, which no image contains as it is; what has no name then is removed."""
    for name, image in _images():
        told = ["docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", image]
        # The stage with Flower; of several, the latest comes first.
        if name == "<none>:<none>" and "python.sh install" in subprocess.run(told, capture_output=True, text=True, check=False).stdout:
            subprocess.run(["docker", "tag", image, "kept/python"], check=False)
            break
    subprocess.run(["docker", "image", "prune", "--force"], stdout=subprocess.DEVNULL, check=False)


def unnamed_images() -> set[str]:
    """What is left of builds."""
    listed = ["docker", "images", "--quiet", "--no-trunc", "--filter", "dangling=true"]
    return set(subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split())


def socket_group() -> int:
    """Who may use the engine."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    return os.stat(host.removeprefix("unix://")).st_gid


def answers() -> bool:
    """Whether there is an engine."""
    if shutil.which("docker") is None:
        return False
    asked = ["docker", "version", "--format", "{{.Server.Version}}"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def compose() -> list[str]:
    """The command that is Compose here; empty if there is none."""
    asked = ["docker", "compose", "version"]
    if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else []


def ensure_base_image() -> None:
    """The image that all others begin with: pulled, or made of Debian's packages where no registry is reachable."""
    inspect = ["docker", "image", "inspect", BASE_IMAGE]
    if subprocess.run(inspect, capture_output=True, check=False).returncode == 0:
        return
    pull = ["timeout", "60", "docker", "pull", "--quiet", BASE_IMAGE]
    if subprocess.run(pull, capture_output=True, check=False).returncode == 0:
        return
    if os.geteuid() != 0:
        raise Unavailable(f"{BASE_IMAGE} cannot be pulled, and making it takes root")
    if shutil.which("debootstrap") is None:
        _install("debootstrap")
    made = subprocess.run(
        ["bash", Path(__file__).with_name("base-image.sh"), BASE_IMAGE],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise Unavailable(f"{BASE_IMAGE} cannot be pulled or made: {made.stdout[-500:]}{made.stderr[-500:]}")


def _install(*packages: str) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Unavailable(f"missing: {' '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-q", *packages]
    for command in (install, ["apt-get", "update", "-q"], install):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if command is install and done.returncode == 0:
            return
    raise Unavailable(f"apt-get cannot install {' '.join(packages)}: {done.stderr[-300:]}")

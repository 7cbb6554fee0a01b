"""The commands of Flower's own page for Docker with TLS, as they are there: image names and addresses aside."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import Iterator

import pytest

from deployment import Deployment, Run, wait_for

rows = pytest.mark.rows
NETWORK = "flower-test-single"


@pytest.fixture(scope="module")
def single(deployment: Deployment) -> Iterator[Deployment]:
    """The images with Python, certificates in `superlink-certificates/`, and a network."""
    for file in ("docker-compose.development.yml", "docker-compose.yml"):
        deployment.build(compose_file=file)
    deployment.shell(
        "$FLWR_QUIC_BINARY certs ca --dir superlink-certificates &&"
        " $FLWR_QUIC_BINARY certs server --dir superlink-certificates &&"
        # The page: `sudo chown -R 49999:49999 certificates/*`.
        " chown -R 49999:49999 superlink-certificates/*",
        deployment.root,
    )
    pyproject = deployment.docker / "pyproject.toml"
    pyproject.write_text(
        pyproject.read_text()
        + "\n[tool.flwr.federations.local-deployment-tls]\n"
        + 'address = "127.0.0.1:9093"\nroot-certificates = "../superlink-certificates/ca.crt"\n'
    )
    deployment.shell(f"docker network create {NETWORK}")
    yield deployment
    deployment.shell(f"docker network rm {NETWORK}")
    deployment.shell("docker rmi flwr-quic/superlink:latest flwr-quic/supernode:latest")


@pytest.fixture
def started(single: Deployment) -> Iterator["Started"]:
    """Starts containers, and ends them."""
    with ExitStack() as closing:
        yield Started(single, closing)


class Started:
    """Containers that a test has started."""

    def __init__(self, deployment: Deployment, closing: ExitStack) -> None:
        self.deployment = deployment
        self._closing = closing

    def container(self, name: str, command: str, *options: str) -> None:
        """A `docker run --rm` of the page, with what this machine needs: a name, a network, `-d`."""
        extra = f"-d --name flower-test-{name} --network {NETWORK} --network-alias {name} {' '.join(options)}"
        assert command.startswith("docker run --rm ")
        self.deployment.shell(command.replace("docker run --rm", f"docker run --rm {extra}", 1), self.deployment.root)
        # With --rm Docker removes it some time after it has stopped.
        gone = f"docker stop flower-test-{name}; docker rm -f flower-test-{name}"
        self._closing.callback(self.deployment.try_shell, gone)

    def superlink(self, flags: str = "") -> None:
        """The page's SuperLink."""
        image = "flwr-quic/superlink:slim" if "process" in flags else "flwr-quic/superlink:latest"
        self.container(
            "superlink",
            "docker run --rm "
            "--volume ./superlink-certificates/:/app/certificates/:ro "
            f"{image} "
            "--ssl-ca-certfile certificates/ca.crt "
            "--ssl-certfile certificates/server.pem "
            f"--ssl-keyfile certificates/server.key {flags}",
            "-p 127.0.0.1:9093:9093",
        )
        self.deployment.wait_healthy("flower-test-superlink")

    def supernode(self, number: int, flags: str = "") -> None:
        """The page's SuperNode, with what it calls additional arguments."""
        image = "flwr-quic/supernode:slim" if "process" in flags else "flwr-quic/supernode:latest"
        self.container(
            f"supernode-{number}",
            "docker run --rm "
            "--volume ./superlink-certificates/ca.crt:/app/ca.crt/:ro "
            f"{image} "
            f"--root-certificates ca.crt {flags} --superlink superlink:9092"
            f" --node-config 'partition-id={number} num-partitions=2'",
        )

    def app(self, plugin: str, daemon: str, port: int) -> None:
        """The page's container for a ServerApp or a ClientApp."""
        self.container(
            f"app-{daemon}",
            "docker run --rm flwr-quic/superexec:latest --insecure"
            f" --plugin-type {plugin} --appio-api-address {daemon}:{port}",
        )

    def run(self) -> None:
        """`flwr run .`, and its end."""
        said = self.deployment.shell("flwr run . local-deployment-tls")
        run = Run(self.deployment, re.search(r"started run (\d+)", said).group(1), "local-deployment-tls")
        run.wait()


@rows("S10", "S11", "S12", "S13", "S14", "S15", "S23", "S24", "S25", "S26", "S28", "S30", "S31", "S32", "S34")
def test_subprocess_isolation(started: Started) -> None:
    started.superlink()
    for number in (0, 1):
        started.supernode(number)
    started.run()


@rows("S16", "S17", "S19", "S20")
def test_process_isolation_with_insecure_apps(started: Started) -> None:
    started.superlink("--isolation process")
    started.app("serverapp", "superlink", 9091)
    for number in (0, 1):
        started.supernode(number, "--isolation process")
        started.app("clientapp", f"supernode-{number}", 9094)
    started.run()


@rows("S18")
def test_one_of_each(started: Started) -> None:
    started.superlink("--isolation process")
    started.app("serverapp", "superlink", 9091)
    for number in (0, 1):
        started.supernode(number)
    started.run()


@rows("S28")
def test_a_key_that_the_container_cannot_read_is_named(single: Deployment) -> None:
    single.shell("chown root:root superlink-certificates/server.key", single.root)
    try:
        refused = single.try_shell(
            "docker run --rm --volume ./superlink-certificates/:/app/certificates/:ro flwr-quic/superlink:slim"
            " --ssl-ca-certfile certificates/ca.crt --ssl-certfile certificates/server.pem"
            " --ssl-keyfile certificates/server.key --isolation process",
            single.root,
        )
    finally:
        single.shell("chown 49999:49999 superlink-certificates/server.key", single.root)
    assert refused.returncode != 0
    assert "certificates/server.key" in refused.stdout and "ermission denied" in refused.stdout

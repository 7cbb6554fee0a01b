"""The commands of Flower's own page for Docker with TLS, as they are there: image names and addresses aside."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Iterator

import pytest

from deployment import Deployment

rows = pytest.mark.rows
NETWORK = "flower-test-single"
AUTHORITY = "../superlink-certificates/ca.crt"


# The names that the page has.
STOCK = ("flwr/superlink:1.22.0", "flwr/supernode:1.22.0")


@pytest.fixture(scope="module")
def single(built: Deployment) -> Iterator[Deployment]:
    """Certificates in `superlink-certificates/`, a network, and images under Flower's names."""
    folder = built.root / "superlink-certificates"
    built.shell(
        f"$FLWR_QUIC_BINARY certs ca --dir {folder} && $FLWR_QUIC_BINARY certs server --dir {folder}",
        built.root,
    )
    # The page: `sudo chown -R 49999:49999 certificates/*`.
    built.as_root(f"chown -R 49999:49999 {folder}/*", folder)
    pyproject = built.docker / "pyproject.toml"
    pyproject.write_text(
        pyproject.read_text()
        + "\n[tool.flwr.federations.local-deployment-tls]\n"
        + f'address = "127.0.0.1:9093"\nroot-certificates = "{AUTHORITY}"\n'
    )
    there = {name: built.try_shell(f"docker images --quiet --no-trunc {name}").stdout.strip() for name in STOCK}
    built.shell(f"docker network create {NETWORK}")
    for name in STOCK:
        built.shell(f"docker tag {name.replace('flwr/', 'flwr-quic/').replace('1.22.0', 'latest')} {name}")
    yield built
    built.shell(f"docker network rm {NETWORK}")
    for name, image in there.items():
        # Somebody may have those of Flower.
        built.shell(f"docker tag {image} {name}" if image else f"docker rmi {name}")


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
        named = f"flower-test-{name}"
        gone = f"docker stop {named}; while docker inspect {named}; do docker rm -f {named}; sleep 0.2; done"
        self._closing.callback(self.deployment.try_shell, gone)

    def superlink(self, image: str, flags: str = "") -> None:
        """The page's SuperLink."""
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

    def supernode(self, number: int, image: str, flags: str = "") -> None:
        """The page's SuperNode, with what it calls additional arguments."""
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

    def nodes(self) -> None:
        """One that launches its ClientApps, and one whose ClientApps a container launches; a run has to have both."""
        self.supernode(0, "flwr-quic/supernode:latest")
        self.supernode(1, "flwr/supernode:1.22.0", "--isolation process")
        self.app("clientapp", "supernode-1", 9094)

    def run(self) -> None:
        """`flwr run .`, and its end."""
        self.deployment.run("local-deployment-tls").wait(authority=AUTHORITY)


@rows("S10", "S11", "S12", "S13", "S14", "S15", "S17", "S18", "S20", "S22", "S23", "S24", "S25", "S26", "S28", "S30", "S31", "S32", "S34")
def test_a_superlink_that_launches_serverapps(started: Started) -> None:
    started.superlink("flwr-quic/superlink:latest")
    started.nodes()
    started.run()


@rows("S16", "S17", "S18", "S19", "S20", "S22", "S26")
def test_a_superlink_whose_serverapps_are_launched(started: Started) -> None:
    started.superlink("flwr/superlink:1.22.0", "--isolation process")
    started.app("serverapp", "superlink", 9091)
    started.nodes()
    started.run()


@rows("S28")
def test_a_key_that_the_container_cannot_read_is_named(single: Deployment) -> None:
    folder = single.root / "superlink-certificates"
    single.as_root(f"chown 0:0 {folder}/server.key", folder)
    try:
        refused = single.try_shell(
            "docker run --rm --volume ./superlink-certificates/:/app/certificates/:ro flwr-quic/superlink:slim"
            " --ssl-ca-certfile certificates/ca.crt --ssl-certfile certificates/server.pem"
            " --ssl-keyfile certificates/server.key --isolation process",
            single.root,
        )
    finally:
        single.as_root(f"chown 49999:49999 {folder}/server.key", folder)
    assert refused.returncode != 0
    assert "certificates/server.key" in refused.stdout and "ermission denied" in refused.stdout

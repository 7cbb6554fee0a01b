"""What start-secure.sh says of a deployment with which something is wrong; it starts nothing then."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Iterator

import pytest

from deployment import Deployment

rows = pytest.mark.rows


@pytest.fixture(scope="module", autouse=True)
def built(deployment: Deployment) -> None:
    """The images."""
    deployment.build()


@pytest.fixture
def broken(deployment: Deployment) -> Iterator[Deployment]:
    """Something to break: its certificates are put back afterwards."""
    kept = deployment.root / "kept"
    deployment.shell(f"cp -a ../certificates {kept}")
    yield deployment
    shutil.rmtree(deployment.certificates)
    kept.rename(deployment.certificates)
    assert not deployment.shell("docker ps -aq --filter name=flower-")


def refusal(deployment: Deployment, flags: str = "--no-build", **environment: str) -> str:
    """What start-secure.sh says when it does not start anything."""
    done = deployment.try_shell(f"./scripts/start-secure.sh {flags}", **environment)
    assert done.returncode == 1, done.stdout
    return done.stdout


@rows("S100", "S113", "S114", "S115")
def test_missing_files_and_what_makes_them(broken: Deployment) -> None:
    for file in ("server/server.crt", "clients/client2.key"):
        (broken.certificates / file).unlink()
    said = refusal(broken)
    assert f"{broken.certificates}/server/server.crt is missing" in said
    assert f"{broken.certificates}/clients/client2.key is missing" in said
    commands = said.split("make what is missing:\n")[1]
    assert "generate_server_cert.sh" in commands and "generate_client_cert.sh 2" in commands
    assert "generate_ca.sh" not in commands
    broken.shell(commands)
    assert "The certificates are right." in broken.shell("./scripts/start-secure.sh --check")


@rows("S100")
def test_a_directory_that_docker_made_instead_of_a_file(broken: Deployment) -> None:
    (broken.certificates / "server/server.key").unlink()
    (broken.certificates / "server/server.key").mkdir()
    assert "server/server.key is a directory" in refusal(broken)


@rows("S101", "S76", "S72")
def test_a_certificate_of_another_authority(broken: Deployment) -> None:
    broken.shell("./scripts/setup/generate_ca.sh --force", broken.certificates)
    said = refusal(broken)
    assert "server/server.crt: " in said and "clients/client1.crt: " in said
    commands = said.split("to make anew what is not right:\n")[1]
    broken.shell(commands)
    assert "The certificates are right." in broken.shell("./scripts/start-secure.sh --check")


@rows("S101")
def test_a_key_of_another_certificate(broken: Deployment) -> None:
    shutil.copy(broken.certificates / "clients/client1.key", broken.certificates / "server/server.key")
    said = refusal(broken)
    assert "clients/client1.crt: ok" in said
    assert "server/server.crt: " in said and "server/server.crt: ok" not in said and "key" in said


@rows("S101", "S132")
def test_a_certificate_that_has_expired(broken: Deployment) -> None:
    folder = broken.certificates
    broken.shell(
        "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=superlink"
        " -keyout server/server.key -out s.csr &&"
        " openssl x509 -req -in s.csr -CA ca/ca.crt -CAkey ca/ca.key -CAcreateserial -days -1"
        " -extfile <(echo 'subjectAltName=DNS:superlink') -out server/server.crt",
        folder,
    )
    assert "expired" in refusal(broken)


@rows("S84")
def test_keys_that_everybody_can_read(broken: Deployment) -> None:
    (broken.certificates / "server/server.key").chmod(0o644)
    said = refusal(broken, "--no-build --strict")
    assert "everybody on this machine can use the private key" in said


@rows("S102", "S28")
def test_keys_become_those_of_the_user_of_the_containers(broken: Deployment) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving files away takes root")
    keys = [broken.certificates / pair for pair in ("server/server.key", "clients/client1.key")]
    for key in keys:
        os.chown(key, 0, 0)
        key.chmod(0o600)
    broken.shell("./scripts/start-secure.sh --check")
    for key in keys:
        assert key.stat().st_uid == 49999 and key.stat().st_mode & 0o777 == 0o440, key
    join = broken.certificates / "join/superlink"
    assert join.stat().st_uid == 49999 and join.stat().st_mode & 0o777 == 0o400


@rows("S137")
def test_a_port_that_is_taken(broken: Deployment) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        said = refusal(broken, CONTROL_PUBLISH=f"127.0.0.1:{port}")
    assert f"port {port} is in use" in said and f"lsof -i :{port}" in said


@rows("S104")
def test_no_engine(deployment: Deployment, tmp_path: Path) -> None:
    said = refusal(deployment, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert "the Docker engine does not answer" in said
    only = tmp_path / "bin"
    only.mkdir()
    for program in ("bash", "dirname", "sed", "cat"):
        (only / program).symlink_to(shutil.which(program) or "/nowhere")
    assert "Docker is not installed" in refusal(deployment, PATH=str(only))


@rows("S104")
def test_a_container_that_does_not_become_healthy(broken: Deployment) -> None:
    # A database that is none.
    broken.shell(
        "docker volume create flower-superlink-data && docker run --rm --user root --entrypoint sh"
        " --volume flower-superlink-data:/app/data flwr-quic/superlink:slim -c"
        " 'echo this is none >/app/data/state.db; chown 49999:49999 /app/data /app/data/*'"
    )
    try:
        said = refusal(broken, START_SECONDS="25")
    finally:
        broken.shell("./scripts/stop-secure.sh --volumes")
    assert "superlink is " in said and "docker logs flower-superlink" in said
    assert "/app/data/state.db" in said, "the last lines of its log say why"
    assert "supernode-1 was not started" in said or "supernode-1 is created" in said


@rows("S105")
def test_status_of_nothing(deployment: Deployment) -> None:
    done = deployment.try_shell("./scripts/check-status.sh")
    assert done.returncode == 1 and "not started" in done.stdout
    assert deployment.try_shell("./scripts/stop-secure.sh").returncode == 0, "stopping twice is no error"
    assert deployment.try_shell("./scripts/stop-secure.sh --bogus").returncode == 2
    assert "first" in deployment.try_shell("./scripts/add-supernode.sh 3").stdout

"""What the scripts do with certificates and settings, and say where something is wrong; nothing is started. All of it holds
for root, and for a user who may use Docker and nothing else."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import sys
import tempfile
from pathlib import Path
from typing import Iterator

import pytest

from deployment import Deployment

rows = pytest.mark.rows
APP = 49999
# What is no user of this machine.
STRANGER = 54321


@pytest.fixture(scope="module", params=["whoever runs this", "a user"])
def operator(request: pytest.FixtureRequest, built: Deployment, binary: Path) -> Iterator[Deployment]:
    """Who types what follows, with a deployment."""
    if request.param == "whoever runs this":
        yield built
        return
    if os.geteuid() != 0:
        pytest.skip("becoming somebody else takes root")
    made = Deployment(Path(tempfile.mkdtemp(prefix="flwr-deployment-")), binary, Path(sys.executable).parent, STRANGER)
    try:
        made.make_certificates()
        yield made
    finally:
        shutil.rmtree(made.root, ignore_errors=True)


@pytest.fixture
def broken(operator: Deployment) -> Iterator[Deployment]:
    """Something to break: its certificates are put back afterwards."""
    kept = operator.root / "kept"
    shutil.copytree(operator.certificates, kept, copy_function=shutil.copy2)
    yield operator
    operator.as_root(f'chown -R "$(id -u):$(id -g)" {operator.certificates}')
    shutil.rmtree(operator.certificates)
    kept.rename(operator.certificates)
    operator.give_to_user()
    assert not operator.shell("docker ps -aq --filter name=flower-")


def refusal(deployment: Deployment, flags: str = "--no-build", **environment: str) -> str:
    """What start-secure.sh says when it does not start anything."""
    done = deployment.try_shell(f"./scripts/start-secure.sh {flags}", **environment)
    assert done.returncode == 1, done.stdout
    return done.stdout


def checked(deployment: Deployment, flags: str = "", **environment: str) -> str:
    """What it says of certificates that are right."""
    said = deployment.shell(f"./scripts/start-secure.sh --check {flags}", **environment)
    assert "The certificates are right." in said
    return said


def keys(deployment: Deployment) -> list[Path]:
    """What nobody else may read."""
    folder = deployment.certificates
    return [*folder.glob("server/*.key"), *folder.glob("clients/*.key"), *folder.glob("join/*")]


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
    checked(broken)


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
    broken.shell(said.split("to make anew what is not right:\n")[1])
    checked(broken)


@rows("S101")
def test_a_key_of_another_certificate(broken: Deployment) -> None:
    shutil.copyfile(broken.certificates / "clients/client1.key", broken.certificates / "server/server.key")
    said = refusal(broken)
    assert "clients/client1.crt: ok" in said
    assert "server/server.crt: " in said and "server/server.crt: ok" not in said and "key" in said


@rows("S101", "S132")
def test_a_certificate_that_has_expired(broken: Deployment) -> None:
    # Keys are the containers' already.
    checked(broken)
    request = "openssl req -new -key server/server.key -subj /CN=superlink"
    sign = "openssl x509 -req -CA ca/ca.crt -CAkey ca/ca.key -CAcreateserial -days -1 -out server/server.crt"
    names = "-extfile <(echo 'subjectAltName=DNS:superlink')"
    broken.shell(f"{request} | {sign} {names}", broken.certificates)
    assert "expired" in refusal(broken)
    broken.shell("./scripts/setup/generate_server_cert.sh", broken.certificates)
    checked(broken)
    assert (broken.certificates / "server/server.key").stat().st_uid == APP, "it is the same file"


@rows("S161")
def test_renewal_with_new_keys(broken: Deployment) -> None:
    checked(broken)
    before = [(key.stat(), key.read_bytes()) for key in keys(broken) if key.suffix == ".key"]
    broken.shell("./scripts/setup/renew_certificates.sh --all --new-keys", broken.certificates)
    for key, (was, content) in zip((key for key in keys(broken) if key.suffix == ".key"), before):
        now = key.stat()
        assert (now.st_uid, now.st_mode, now.st_ino) == (was.st_uid, was.st_mode, was.st_ino), key
        assert key.read_bytes() != content
    checked(broken)


@rows("S84")
def test_keys_that_everybody_can_read(broken: Deployment) -> None:
    (broken.certificates / "server/server.key").chmod(0o644)
    assert "everybody on this machine can use the private key" in refusal(broken, "--no-build --strict")
    # For development: it stays as somebody has made it.
    assert "warning: " in checked(broken)
    assert (broken.certificates / "server/server.key").stat().st_mode & 0o777 == 0o644


@rows("S102", "S28", "S84")
@pytest.mark.parametrize("flags", ["", "--strict"])
def test_keys_become_those_of_the_user_of_the_containers(broken: Deployment, flags: str) -> None:
    owner = broken.docker.stat()
    for key in keys(broken):
        os.chown(key, owner.st_uid, owner.st_gid)
        key.chmod(0o600)
    checked(broken, flags)
    assert len(keys(broken)) == 6
    for key in keys(broken):
        now = key.stat()
        assert (now.st_uid, now.st_gid, stat.S_IMODE(now.st_mode)) == (APP, owner.st_gid, 0o440), key
    checked(broken, flags)


@rows("S28")
def test_what_flowers_page_does_with_all_files(broken: Deployment) -> None:
    broken.as_root(f"chown -R 49999:49999 {broken.certificates}/*")
    checked(broken)
    if broken.docker.stat().st_uid == 0:
        return
    refused = broken.try_shell("./scripts/setup/generate_server_cert.sh", broken.certificates)
    assert refused.returncode == 1 and "sudo chown -R" in refused.stdout


@rows("S85")
def test_secrets_that_only_the_containers_can_read(broken: Deployment) -> None:
    checked(broken)
    secrets = broken.certificates / "secrets"
    for key in keys(broken):
        place = secrets / key.relative_to(broken.certificates)
        place.parent.mkdir(parents=True, exist_ok=True)
        key.rename(place)
    broken.give_to_user()
    broken.shell(f"chmod -R go= {secrets}; find {secrets} -type f -exec chmod 400 {{}} +")
    broken.as_root(f"chown -R 49999:49999 {secrets}")
    checked(broken, "--strict", SECRETS_DIR=str(secrets))
    broken.as_root(f"rm {secrets}/server/server.key")
    assert "server/server.key" in refusal(broken, SECRETS_DIR=str(secrets))


def test_a_machine_with_docker_only(broken: Deployment) -> None:
    nothing = {"FLWR_QUIC_BINARY": "", "PATH": "/usr/local/bin:/usr/bin:/bin"}
    checked(broken, "--no-build", **nothing)
    broken.shell("./scripts/setup/generate_server_cert.sh", broken.certificates, **nothing)
    checked(broken, "--no-build", **nothing)
    assert "until" in broken.try_shell("./scripts/check-status.sh", **nothing).stdout


def test_settings_are_read_as_compose_reads_them(operator: Deployment) -> None:
    settings = operator.docker / ".env"
    kept = settings.read_text()
    added = operator.docker / "docker-compose.nodes.yml"
    try:
        added.touch()
        settings.write_text(
            "# FLEET_PUBLISH=1\nFLEET_PUBLISH=1\nFLEET_PUBLISH=\"0.0.0.0:9092\"   # for everybody\n"
            "COMPOSE_FILE='docker-compose.yml:docker-compose.internal.yml'\nCONTROL_PUBLISH=0.0.0.0:9093 # last"
        )
        shown = 'source scripts/common.sh; echo "$FLEET_PUBLISH|$CONTROL_PUBLISH|$COMPOSE_FILE|$COMPOSE_PROJECT_NAME"'
        files = "docker-compose.yml:docker-compose.nodes.yml:docker-compose.internal.yml"
        assert operator.shell(shown).strip() == f"0.0.0.0:9092|0.0.0.0:9093|{files}|flower"
        said = operator.shell(shown, COMPOSE_FILE="docker-compose.development.yml", FLEET_PUBLISH="x")
        assert said.strip() == "x|0.0.0.0:9093|docker-compose.development.yml|flower"
        settings.write_text(kept)
        assert "|docker-compose.yml:docker-compose.nodes.yml:docker-compose.override.yml|" in operator.shell(shown)
    finally:
        settings.write_text(kept)
        added.unlink()


@rows("S137")
def test_a_port_that_is_taken(broken: Deployment) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        said = refusal(broken, CONTROL_PUBLISH=f"127.0.0.1:{port}")
    assert f"port {port} is in use" in said and f"lsof -i :{port}" in said


@rows("S104")
def test_no_engine(operator: Deployment, tmp_path: Path) -> None:
    said = refusal(operator, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert "the Docker engine does not answer" in said
    only = operator.root / "bin"
    only.mkdir()
    for program in ("bash", "dirname", "sed", "cat", "tail"):
        (only / program).symlink_to(shutil.which(program) or "/nowhere")
    assert "Docker is not installed" in refusal(operator, PATH=str(only))


@rows("S104", "S133")
def test_a_container_that_does_not_become_healthy(broken: Deployment) -> None:
    # A database that is none.
    broken.shell(
        "docker volume create flower-superlink-data && docker run --rm --user root --entrypoint sh"
        " --volume flower-superlink-data:/app/data flwr-quic/superlink:slim -c"
        " 'echo this is none >/app/data/state.db; chown 49999:49999 /app/data /app/data/*'"
    )
    try:
        # It ends again and again, which is seen long before the time is over.
        said = refusal(broken)
    finally:
        broken.shell("./scripts/stop-secure.sh --volumes")
    assert "superlink is " in said and "docker logs flower-superlink" in said
    assert "/app/data/state.db" in said, "the last lines of its log say why"
    assert "supernode-1 was not started" in said or "supernode-1 is created" in said


@rows("S105")
def test_status_of_nothing(operator: Deployment) -> None:
    done = operator.try_shell("./scripts/check-status.sh")
    assert done.returncode == 1 and "not started" in done.stdout
    assert operator.try_shell("./scripts/stop-secure.sh").returncode == 0, "stopping twice is no error"
    assert operator.try_shell("./scripts/stop-secure.sh --bogus").returncode == 2
    assert "first" in operator.try_shell("./scripts/add-supernode.sh 3").stdout

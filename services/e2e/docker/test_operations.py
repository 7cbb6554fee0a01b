"""The secure deployment, while things happen to it: nodes are added, certificates renewed, processes killed and stopped."""

from __future__ import annotations

import pytest

from deployment import CONTAINERS, OVERRIDE, VOLUMES, Deployment, wait_for

rows = pytest.mark.rows


def started(deployment: Deployment, *containers: str) -> list[str]:
    """Since when they run."""
    return [deployment.inspect(container)["State"]["StartedAt"] for container in containers]


@rows("S148")
def test_a_node_more_without_a_restart_of_the_rest(secure: Deployment) -> None:
    before = started(secure, *CONTAINERS)
    # The sixth: no port of it is one that the images use themselves.
    secure.shell("./scripts/add-supernode.sh 6")
    secure.wait_healthy("flower-supernode-6", "flower-superexec-clientapp-6")
    secure.run(config="min-nodes=3").wait()
    assert started(secure, *CONTAINERS) == before
    # Said twice, nothing happens.
    sixth = started(secure, "flower-supernode-6")
    secure.shell("./scripts/add-supernode.sh 6")
    assert started(secure, "flower-supernode-6") == sixth
    assert "healthy" in secure.shell("./scripts/check-status.sh -s supernode-6")


def test_what_the_operator_has_written_stays(secure: Deployment) -> None:
    assert (secure.docker / "docker-compose.override.yml").read_text() == OVERRIDE
    secure.shell("docker exec flower-superexec-clientapp-1 ls /app/patients/client_app.py")
    before = started(secure, *CONTAINERS, "flower-supernode-6")
    secure.shell("./scripts/start-secure.sh --no-build")
    assert started(secure, *CONTAINERS, "flower-supernode-6") == before
    refused = secure.try_shell("./scripts/add-supernode.sh 7", SECRETS_DIR=str(secure.certificates / "server"))
    assert refused.returncode == 1 and "clients/client7.key is missing" in refused.stdout
    assert "supernode-7" not in (secure.docker / "docker-compose.nodes.yml").read_text()


@rows("S86", "S132", "S161")
def test_new_certificates_in_a_run(secure: Deployment) -> None:
    shown = "openssl s_client -connect 127.0.0.1:9093 -alpn h2 </dev/null 2>/dev/null | openssl x509 -noout -serial"
    before = secure.shell(shown)
    since = started(secure, "flower-superlink")
    run = secure.run(config="num-server-rounds=12 seconds=1.0")
    secure.shell("$FLWR_QUIC_BINARY certs renew --all --new-keys --in-place --dir ../certificates")
    wait_for(lambda: secure.shell(shown) != before, 30, "the SuperLink shows the new certificate")
    # And the one that the script of the document makes.
    renewed = secure.shell(shown)
    secure.shell("./scripts/setup/generate_server_cert.sh", secure.certificates)
    wait_for(lambda: secure.shell(shown) != renewed, 30, "the SuperLink shows the next one")
    run.wait()
    assert started(secure, "flower-superlink") == since


@rows("S51", "S135", "S145")
def test_a_superlink_that_is_killed_and_restarted_in_a_run(secure: Deployment) -> None:
    run = secure.run(config="num-server-rounds=9 seconds=1.0")
    run.wait_round(2)
    killed = secure.inspect("flower-superlink")["RestartCount"]
    # The child of the init; Docker does not start again what it has killed itself.
    secure.shell("docker exec flower-superlink sh -c 'kill -9 $(cat /proc/1/task/1/children)'")
    wait_for(lambda: secure.inspect("flower-superlink")["RestartCount"] > killed, 30, "Docker starts it again")
    run.wait_round(4)
    secure.shell("docker restart flower-superlink")
    run.wait_round(6)
    secure.shell("docker compose restart superlink")
    run.wait()


@rows("S59", "S80")
def test_processes_that_hang_are_ended_and_started_again(secure: Deployment) -> None:
    hung = ("flower-superlink", "flower-supernode-1", "flower-superexec-clientapp-2")
    before = {container: secure.inspect(container)["RestartCount"] for container in hung}
    for container in hung:
        # The init, which is process 1, has one child.
        secure.shell(f"docker exec {container} sh -c 'kill -STOP $(cat /proc/1/task/1/children)'")
    wait_for(lambda: secure.health("flower-superlink") == "unhealthy", 60, "it is found out")
    for container in hung:
        wait_for(lambda: secure.inspect(container)["RestartCount"] > before[container], 90, f"{container} is started again")
    secure.wait_healthy(*hung)
    secure.run(config="min-nodes=2").wait()


@rows("S06", "S105", "S143")
def test_stopping_and_starting_one_service(secure: Deployment) -> None:
    secure.shell("docker compose stop supernode-1 superlink")
    state = secure.inspect("flower-supernode-1")["State"]
    assert state["ExitCode"] == 0, "it drained within its time"
    assert secure.try_shell("./scripts/check-status.sh").returncode == 1
    # It lives, and has nobody to work for.
    assert secure.health("flower-supernode-2") == "healthy"
    said = secure.try_shell("./scripts/check-status.sh -s supernode-2")
    assert said.returncode == 1 and "healthy, but not ready: the " in said.stdout, said.stdout
    secure.shell("docker compose up -d superlink supernode-1")
    secure.wait_healthy("flower-superlink", "flower-supernode-1")
    wait_for(lambda: secure.try_shell("./scripts/check-status.sh").returncode == 0, 60, "all are ready")


@rows("S61", "S109", "S143", "S146", "S147", "S148", "S51", "S54")
def test_stop_keeps_the_data_and_a_node_is_added_by_hand(secure: Deployment) -> None:
    runs = secure.shell("flwr ls . local-deployment --format json").count('"run-id"')
    keys = """docker exec flower-supernode-1 sh -c "cd /app/data; find . -type f -name '*key*' -exec sha256sum {} +" """
    key = secure.shell(keys)
    assert "key" in key
    # The document's three steps.
    secure.shell("./scripts/setup/generate_client_cert.sh 3", secure.certificates)
    copy_node(secure, 3)
    secure.shell("./scripts/stop-secure.sh")
    assert not secure.shell("docker ps -aq --filter name=flower-")
    assert not secure.shell("docker network ls -q --filter name=flower-fl-network")
    assert set(VOLUMES) <= set(secure.shell("docker volume ls -q").split())
    secure.shell("./scripts/start-secure.sh --no-build")
    assert secure.shell("flwr ls . local-deployment --format json").count('"run-id"') == runs
    assert secure.shell(keys) == key
    secure.run(config="min-nodes=4").wait()


def copy_node(deployment: Deployment, number: int) -> None:
    """What the document says: "copy from supernode-2 and update partition-id"."""
    file = deployment.docker / "docker-compose.yml"
    text = file.read_text()
    copies = "".join(
        text[text.index(f"  {begin}:") : text.index(end, text.index(f"  {begin}:"))]
        for begin, end in (("supernode-2", "  superexec-clientapp-2:"), ("superexec-clientapp-2", "networks:\n"))
    )
    for name in ("supernode-", "clientapp-", "client", "supernode"):
        copies = copies.replace(f"{name}2", f"{name}{number}")
    copies = copies.replace("partition-id=1", f"partition-id={number - 1}")
    volumes = "".join(
        f"  supernode{number}-{what}: {{name: flower-supernode{number}-{what}}}\n" for what in ("data", "cache")
    )
    file.write_text(text.replace("\nnetworks:\n", f"\n{copies.rstrip()}\n\nnetworks:\n", 1) + volumes)

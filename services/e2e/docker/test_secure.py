"""The secure deployment, as its operator has it: started by its script, looked at with the commands of the document."""

from __future__ import annotations

import json
from typing import Iterator

import pytest

from deployment import SERVICES, VOLUMES, Deployment, wait_for

CONTAINERS = tuple(f"flower-{service}" for service in SERVICES)
rows = pytest.mark.rows


@pytest.fixture(scope="module")
def secure(deployment: Deployment) -> Iterator[Deployment]:
    """Started."""
    said = deployment.shell("./scripts/start-secure.sh", seconds=900)
    assert "All containers are healthy." in said
    yield deployment
    deployment.shell("./scripts/stop-secure.sh --volumes")
    # Others have a deployment of two nodes.
    (deployment.docker / "docker-compose.override.yml").unlink(missing_ok=True)


@rows("S42", "S43", "S44", "S45", "S46", "S47", "S100", "S101", "S102", "S103", "S104", "S150")
def test_all_six_are_healthy(secure: Deployment) -> None:
    for container in CONTAINERS:
        assert secure.health(container) == "healthy", container


@rows("S104")
def test_starting_again_changes_nothing(secure: Deployment) -> None:
    before = [secure.inspect(container)["State"]["StartedAt"] for container in CONTAINERS]
    said = secure.shell("./scripts/start-secure.sh --no-build")
    assert "All containers are healthy." in said
    assert [secure.inspect(container)["State"]["StartedAt"] for container in CONTAINERS] == before


@rows("S40", "S41", "S77", "S138")
def test_the_network_is_the_one_of_the_document(secure: Deployment) -> None:
    secure.shell("docker network ls | grep flower-fl-network")
    listed = secure.shell("docker network inspect flower-fl-network | grep -A 10 Containers")
    assert '"Name": "flower-' in listed
    network = secure.inspect("flower-fl-network")
    assert network["Driver"] == "bridge"
    assert network["IPAM"]["Config"][0]["Subnet"] == "172.28.0.0/16"
    for container in CONTAINERS:
        known = secure.inspect(container)
        assert list(known["NetworkSettings"]["Networks"]) == ["flower-fl-network"], container
        assert known["HostConfig"]["NetworkMode"] == "flower-fl-network", container


@rows("S51", "S52", "S53", "S54", "S55", "S56", "S57", "S139")
def test_the_volumes_are_those_of_the_document(secure: Deployment) -> None:
    names = secure.shell("docker volume ls -q | grep flower").split()
    assert sorted(names) == sorted(VOLUMES)
    secure.shell("docker volume inspect flower-model-outputs")
    assert '"Destination": "/app/' in secure.shell("docker inspect flower-supernode-1 | grep -A 20 Mounts")
    places = {
        (container, mount.get("Name"), mount["Destination"])
        for container in CONTAINERS
        for mount in secure.inspect(container)["Mounts"]
    }
    assert places >= {
        ("flower-superlink", "flower-superlink-data", "/app/data"),
        ("flower-superlink", "flower-superlink-logs", "/app/logs"),
        ("flower-superexec-serverapp", "flower-model-outputs", "/app/outputs"),
        ("flower-supernode-1", "flower-supernode1-data", "/app/data"),
        ("flower-supernode-1", "flower-supernode1-cache", "/app/.cache"),
        ("flower-supernode-2", "flower-supernode2-data", "/app/data"),
        ("flower-supernode-2", "flower-supernode2-cache", "/app/.cache"),
    }
    secure.shell("docker exec flower-superexec-clientapp-1 sh -c 'touch /app/.cache/x && rm /app/.cache/x'")


@rows("S48", "S49", "S50", "S66", "S79")
def test_the_containers_have_limits(secure: Deployment) -> None:
    for container in CONTAINERS:
        limits = secure.inspect(container)["HostConfig"]
        gigabytes = 4 if "supernode" in container else 2
        assert limits["NanoCpus"] == 2_000_000_000, container
        assert limits["Memory"] == gigabytes << 30, container
        assert limits["MemoryReservation"] == gigabytes << 28, container


@rows("S07", "S89")
def test_only_control_and_fleet_are_published(secure: Deployment) -> None:
    published = {
        (container, port, binding["HostIp"], binding["HostPort"])
        for container in CONTAINERS
        for port, bindings in secure.inspect(container)["NetworkSettings"]["Ports"].items()
        for binding in bindings or []
    }
    assert published == {
        ("flower-superlink", "9093/tcp", "127.0.0.1", "9093"),
        ("flower-superlink", "9092/tcp", "127.0.0.1", "9092"),
        ("flower-superlink", "9092/udp", "127.0.0.1", "9092"),
    }


@rows("S60", "S70", "S78", "S134")
def test_certificates_are_mounted_and_cannot_be_changed(secure: Deployment) -> None:
    listed = secure.shell("docker exec flower-superlink ls -la /app/certificates/")
    assert "ca" in listed and "server" in listed
    assert "ca" in secure.shell("docker exec flower-supernode-1 ls -la /app/certificates/")
    for container in CONTAINERS:
        known = secure.inspect(container)
        mounts = [mount for mount in known["Mounts"] if "/certificates/" in mount["Destination"]]
        assert mounts and not any(mount["RW"] for mount in mounts), container
        assert not any("insecure" in argument for argument in known["Args"]), container
        # The key of the authority is nowhere.
        assert not any(mount["Destination"].endswith("ca.key") for mount in mounts), container
    for file in ("ca/ca.crt", "server/server.crt", "server/server.key"):
        refused = secure.try_shell(f"docker exec flower-superlink sh -c ': >/app/certificates/{file}'")
        assert refused.returncode != 0, file


@rows("S01", "S02", "S03", "S04", "S05", "S62", "S63", "S64", "S65", "S71", "S76")
@pytest.mark.parametrize(
    "asker, address",
    [
        ("flower-superexec-serverapp", "superlink:9091"),
        ("flower-supernode-1", "superlink:9092"),
        ("flower-supernode-2", "superlink:9093"),
        ("flower-superexec-clientapp-1", "supernode-1:9094"),
        ("flower-superexec-clientapp-2", "supernode-2:9095"),
    ],
)
def test_every_port_has_tls_that_the_authority_vouches_for(secure: Deployment, asker: str, address: str) -> None:
    host = address.split(":")[0]
    shake = (
        f"docker exec {asker} sh -c 'openssl s_client -connect {address} -alpn h2 -verify_return_error"
        f" -verify_hostname {host} -CAfile /app/certificates/ca/ca.crt %s </dev/null'"
    )
    said = secure.shell(shake % "")
    assert "Verify return code: 0 (ok)" in said
    assert "TLSv1.3" in said or "TLSv1.2" in said
    assert secure.try_shell(shake % "-tls1_1").returncode != 0


@rows("S72")
def test_a_node_refuses_a_superlink_of_another_authority(secure: Deployment, binary: object) -> None:
    other = secure.root / "other"
    secure.shell(f"{binary} certs ca --dir {other}")
    said = secure.try_shell(
        f"docker run --rm --network flower-fl-network --volume {other}/ca.crt:/app/ca.crt:ro"
        " flwr-quic/supernode:slim --root-certificates ca.crt --superlink superlink:9092 --isolation process"
        " --max-retries 0"
    )
    assert said.returncode != 0
    assert "certificate" in said.stdout, said.stdout


@rows("S06", "S151", "S165")
def test_health_checks_say_something(secure: Deployment) -> None:
    checked = json.loads(secure.shell("docker inspect flower-superlink --format='{{json .State.Health}}'"))
    assert "is serving" in checked["Log"][-1]["Output"]
    assert "is serving" in secure.shell("docker exec flower-superlink flwr-quic health")
    outside = "$FLWR_QUIC_BINARY health --root-certificates ../certificates/ca/ca.crt 127.0.0.1:9093"
    assert "serves the Control API" in secure.shell(outside)


@rows("S58")
def test_nodes_are_started_once_the_superlink_is_healthy(secure: Deployment) -> None:
    started = {service: secure.inspect(f"flower-{service}")["State"]["StartedAt"] for service in SERVICES}
    for number in (1, 2):
        assert started["superlink"] < started[f"supernode-{number}"] < started[f"superexec-clientapp-{number}"]
    assert started["superlink"] < started["superexec-serverapp"]


@rows("S61", "S121", "S53", "S31", "S32")
def test_a_run_from_the_host_leaves_its_model(secure: Deployment) -> None:
    run = secure.run("local-deployment")
    run.wait()
    model = secure.shell(
        "docker run --rm --network none --volume flower-model-outputs:/outputs:ro --entrypoint python3"
        " flwr-quic/superexec:latest -c"
        f" \"import numpy; print(*numpy.load('/outputs/line-{run.id}.npy'))\""
    )
    slope, offset = map(float, model.split())
    # Three rounds, each half of the way.
    assert abs(slope - 2 * 7 / 8) < 0.05 and abs(offset - 7 / 8) < 0.05


@rows("S122")
def test_a_run_from_inside_the_network(secure: Deployment) -> None:
    said = secure.shell(
        "docker run --rm --network flower-fl-network --volume $PWD:/app/project:ro"
        " --volume $PWD/../certificates/ca/ca.crt:/app/certificates/ca/ca.crt:ro"
        " --entrypoint flwr flwr-quic/superexec:latest run /app/project docker-deployment --stream"
    )
    assert "Successfully started run" in said and "saved as line-" in said


@rows("S105", "S150", "S162")
def test_check_status(secure: Deployment) -> None:
    said = secure.shell("./scripts/check-status.sh")
    for service in SERVICES:
        assert f"{service} " in said
    assert "healthy" in said and "server/server.crt until" in said and "flower-model-outputs" in said


@rows("S52", "S106", "S107", "S108", "S133", "S142")
def test_logs(secure: Deployment) -> None:
    assert "Starting Flower SuperLink" in secure.shell("./scripts/check-status.sh -s superlink -l")
    assert "supernode-1" in secure.shell("./scripts/check-status.sh --logs")
    secure.follow("./scripts/check-status.sh --follow", "supernode-1")
    assert "Starting Flower SuperLink" in secure.shell("docker logs flower-superlink")
    assert "Starting Flower SuperLink" in secure.shell("docker exec flower-superlink cat /app/logs/superlink.log")
    assert secure.shell("docker logs flower-supernode-1")
    secure.follow("docker compose logs -f superlink", "superlink")
    assert secure.shell("docker compose logs --tail=100 supernode-1")
    unknown = secure.try_shell("./scripts/check-status.sh -s nobody")
    assert unknown.returncode == 1 and "there is no service nobody" in unknown.stdout


@rows("S136", "S149", "S152")
def test_looking_around_in_containers(secure: Deployment) -> None:
    assert "3 received" in secure.shell("docker exec flower-supernode-1 ping -c 3 superlink")
    # The document says 9093, which is Control: a node talks to Fleet.
    assert "ESTABLISHED" in secure.shell("docker exec flower-supernode-1 netstat -an | grep 9092")
    assert "flower-superlink" in secure.shell("docker stats --no-stream flower-superlink")


@rows("S130", "S131", "S132", "S83")
def test_certificates_by_openssl(secure: Deployment) -> None:
    for pair in ("server/server", "clients/client1", "clients/client2"):
        said = secure.shell(f"openssl verify -CAfile ../certificates/ca/ca.crt ../certificates/{pair}.crt")
        assert said.strip().endswith("OK")
    assert "notAfter=" in secure.shell("openssl x509 -in ../certificates/server/server.crt -noout -enddate")


@rows("S137")
def test_a_port_that_is_taken_is_named(secure: Deployment) -> None:
    listed = secure.try_shell("ss -ltn | grep 127.0.0.1:9093")
    assert "LISTEN" in listed.stdout
    second = secure.try_shell(
        "docker run --rm -p 127.0.0.1:9093:9093 flwr-quic/superlink:slim --insecure --isolation process"
    )
    assert second.returncode != 0 and "9093" in second.stdout


@rows("S147", "S146", "S148")
def test_a_third_node_without_a_restart_of_the_rest(secure: Deployment) -> None:
    before = [secure.inspect(container)["State"]["StartedAt"] for container in CONTAINERS]
    secure.shell("./scripts/add-supernode.sh 3")
    secure.wait_healthy("flower-supernode-3", "flower-superexec-clientapp-3")
    secure.run(config="min-nodes=3").wait()
    assert [secure.inspect(container)["State"]["StartedAt"] for container in CONTAINERS] == before
    # Said twice, nothing happens.
    third = secure.inspect("flower-supernode-3")["State"]["StartedAt"]
    secure.shell("./scripts/add-supernode.sh 3")
    assert secure.inspect("flower-supernode-3")["State"]["StartedAt"] == third
    assert "healthy" in secure.shell("./scripts/check-status.sh -s supernode-3")


@rows("S86", "S132", "S161")
def test_new_certificates_in_a_run(secure: Deployment) -> None:
    shown = "openssl s_client -connect 127.0.0.1:9093 -alpn h2 </dev/null 2>/dev/null | openssl x509 -noout -serial"
    before = secure.shell(shown)
    started = secure.inspect("flower-superlink")["State"]["StartedAt"]
    run = secure.run(config="num-server-rounds=12 seconds=1.0")
    secure.shell("$FLWR_QUIC_BINARY certs renew --all --new-keys --in-place --dir ../certificates")
    wait_for(lambda: secure.shell(shown) != before, 30, "the SuperLink shows the new certificate")
    # And the one that the script of the document makes.
    renewed = secure.shell(shown)
    secure.shell("./scripts/setup/generate_server_cert.sh", secure.certificates)
    wait_for(lambda: secure.shell(shown) != renewed, 30, "the SuperLink shows the next one")
    run.wait()
    assert secure.inspect("flower-superlink")["State"]["StartedAt"] == started


@rows("S51", "S135")
def test_a_superlink_that_is_killed_in_a_run(secure: Deployment) -> None:
    run = secure.run(config="num-server-rounds=6 seconds=1.0")
    run.wait_round(2)
    killed = secure.inspect("flower-superlink")
    # From the host: Docker does not start again what it has killed itself.
    secure.shell(f"kill -9 {killed['State']['Pid']}")
    wait_for(
        lambda: secure.inspect("flower-superlink")["RestartCount"] > killed["RestartCount"],
        30,
        "Docker starts it again",
    )
    run.wait()


@rows("S135", "S145")
def test_restarts(secure: Deployment) -> None:
    run = secure.run(config="num-server-rounds=6 seconds=1.0")
    run.wait_round(2)
    secure.shell("docker restart flower-superlink")
    run.wait()
    secure.shell("docker compose restart superlink")
    secure.wait_healthy("flower-superlink")
    secure.run().wait()


@rows("S59", "S80")
def test_a_process_that_hangs_is_ended_and_started_again(secure: Deployment) -> None:
    before = secure.inspect("flower-superlink")["RestartCount"]
    # The init, which is process 1, has one child.
    secure.shell("docker exec flower-superlink sh -c 'kill -STOP $(cat /proc/1/task/1/children)'")
    wait_for(lambda: secure.health("flower-superlink") == "unhealthy", 60, "it is found out")
    wait_for(lambda: secure.inspect("flower-superlink")["RestartCount"] > before, 90, "it is started again")
    secure.wait_healthy("flower-superlink")
    secure.run().wait()


@rows("S143")
def test_stopping_and_starting_one_service(secure: Deployment) -> None:
    secure.shell("docker compose stop supernode-1")
    state = secure.inspect("flower-supernode-1")["State"]
    assert state["ExitCode"] == 0, "it drained within its time"
    assert secure.try_shell("./scripts/check-status.sh").returncode == 1
    secure.shell("docker compose up -d supernode-1")
    secure.wait_healthy("flower-supernode-1")


@rows("S61", "S109", "S143", "S51", "S54")
def test_stop_keeps_the_data(secure: Deployment) -> None:
    runs = secure.shell("flwr ls . local-deployment --format json").count('"run-id"')
    node = secure.shell("docker exec flower-supernode-1 ls /app/data")
    secure.shell("./scripts/stop-secure.sh")
    assert not secure.shell("docker ps -aq --filter name=flower-")
    assert not secure.shell("docker network ls -q --filter name=flower-fl-network")
    assert set(VOLUMES) <= set(secure.shell("docker volume ls -q").split())
    secure.shell("./scripts/start-secure.sh --no-build")
    assert secure.shell("flwr ls . local-deployment --format json").count('"run-id"') == runs
    assert secure.shell("docker exec flower-supernode-1 ls /app/data") == node
    secure.run().wait()

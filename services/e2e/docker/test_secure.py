"""The secure deployment, as its operator has it, looked at with the commands of the document. Nothing is changed here."""

from __future__ import annotations

import json
import re

import pytest

from deployment import CONTAINERS, SERVICES, VOLUMES, Deployment

rows = pytest.mark.rows


@rows("S08", "S42", "S43", "S44", "S45", "S46", "S47", "S150")
def test_all_six_are_healthy(secure: Deployment) -> None:
    for container in CONTAINERS:
        assert secure.health(container) == "healthy", container
    for number in (1, 2):
        arguments = secure.inspect(f"flower-supernode-{number}")["Args"]
        assert f"--node-config=partition-id={number - 1} num-partitions=2" in arguments


@rows("S100", "S101", "S102", "S103", "S104")
def test_starting_again_changes_nothing(secure: Deployment) -> None:
    before = [secure.inspect(container)["State"]["StartedAt"] for container in CONTAINERS]
    said = secure.shell("./scripts/start-secure.sh", seconds=900)
    steps = [line[:2] for line in said.splitlines() if line[:2] in ("1.", "2.", "3.", "4.", "5.")]
    assert steps == ["1.", "2.", "3.", "4.", "5."]
    assert "All containers are healthy and ready." in said
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


@rows("S03", "S07", "S89")
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


# Of a client that speaks TLS 1.1; by itself Debian's does not.
OLD = "-tls1_1 -cipher DEFAULT@SECLEVEL=0"


@rows("S01", "S02", "S03", "S04", "S05", "S21", "S62", "S63", "S64", "S65", "S71", "S76")
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
    refused = secure.try_shell(shake % OLD)
    assert refused.returncode != 0 and "SSL alert number" in refused.stdout, refused.stdout


def test_a_server_with_an_old_tls_would_be_found(secure: Deployment) -> None:
    said = secure.shell(
        "docker exec flower-superexec-serverapp sh -c 'cd /tmp;"
        " openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout old.key -out old.crt 2>/dev/null;"
        f" timeout 10 openssl s_server -www -accept 4443 -cert old.crt -key old.key {OLD} >/dev/null 2>&1 & sleep 2;"
        f" openssl s_client -connect 127.0.0.1:4443 {OLD} </dev/null'"
    )
    assert "Protocol  : TLSv1.1" in said


@rows("S72", "S133")
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


@rows("S03", "S46", "S47", "S61", "S121", "S123", "S53", "S31", "S32")
def test_a_run_from_the_host_leaves_its_model(secure: Deployment) -> None:
    # Literally; docker/bin has what makes it a command of Flower 1.22.
    said = secure.shell("PATH=$PWD/bin:$PATH; flwr run . --federation local-deployment --stream")
    run = re.search(r"started run (\d+)", said).group(1)
    assert f"saved as line-{run}.npy" in said
    assert run in secure.shell("flwr ls . local-deployment")
    assert f"line-{run}.npy" in secure.try_shell(f"timeout 20 flwr log {run} . local-deployment --show").stdout
    for number in (1, 2):
        assert f"partition {number - 1} of 2" in secure.shell(f"docker logs flower-superexec-clientapp-{number}")
    model = secure.shell(
        "docker run --rm --network none --volume flower-model-outputs:/outputs:ro --entrypoint python3"
        " flwr-quic/superexec:latest -c"
        f" \"import numpy; print(*numpy.load('/outputs/line-{run}.npy'))\""
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


@rows("S105", "S150")
def test_check_status(secure: Deployment) -> None:
    said = secure.shell("./scripts/check-status.sh")
    for service in SERVICES:
        assert f"{service} " in said
    assert "healthy" in said and "server/server.crt until" in said and "flower-model-outputs" in said


@rows("S52", "S106", "S107", "S108", "S142")
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


@rows("S136", "S149", "S152", "S162")
def test_looking_around_in_containers(secure: Deployment) -> None:
    assert "3 received" in secure.shell("docker exec flower-supernode-1 ping -c 3 superlink")
    # The document says 9093, which is Control: a node talks to Fleet.
    assert "ESTABLISHED" in secure.shell("docker exec flower-supernode-1 netstat -an | grep 9092")
    stats = secure.shell("docker stats --no-stream flower-superlink")
    assert "flower-superlink" in stats and "CPU %" in stats and "MEM USAGE" in stats


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


@rows("S164")
def test_a_backup_can_be_restored(secure: Deployment) -> None:
    state = "flwr-quic state %s --database /app/data/%s/state.db --storage-dir /app/data/%s/objects"
    backup = (state % ("backup", ".", ".")) + " /app/data/backup-1"
    restore = (state % ("restore", "restored", "restored")) + " /app/data/backup-1"
    check = state % ("check", "restored", "restored")
    secure.shell(
        "docker exec flower-superlink sh -c"
        f" 'set -e; cd /app/data; {backup}; mkdir restored; {restore}; {check}; rm -r backup-1 restored'"
    )

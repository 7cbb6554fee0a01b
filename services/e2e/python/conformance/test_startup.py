"""Protocol section 9.10 and everything else a start can trip over."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from scenario import reference_differs
from startup import (
    Ports,
    Start,
    caught_signals,
    certificate_pair,
    ports,
    refusal,
    start,
)
from wire import AppIo, Control, Node, new_key, openssh

from harness import Certificates, port_is_open, session_members, wait_for

CERTIFICATE_FLAGS = ["--ssl-ca-certfile", "--ssl-certfile", "--ssl-keyfile"]

FLAGS_OF_1_22 = """
    --insecure --flwr-dir --ssl-certfile --ssl-keyfile --ssl-ca-certfile --isolation --database
    --storage-dir --auth-list-public-keys --auth-superlink-private-key --auth-superlink-public-key
    --serverappio-api-address --fleet-api-type --fleet-api-address --fleet-api-num-workers
    --control-api-address --exec-api-address --executor --executor-dir --executor-config
    --simulation --simulationio-api-address --health-server-address --help
""".split()


def certificate_flags(ca: object, cert: object, key: object) -> list[str]:
    """The three certificate flags."""
    return [part for pair in zip(CERTIFICATE_FLAGS, map(str, (ca, cert, key))) for part in pair]


def listens(where: Ports) -> bool:
    """Whether all three ports accept connections."""
    return all(port_is_open(address) for address in where.flags().values())


def serves(where: Ports) -> None:
    """Require an ordinary answer on each port."""
    with Control(where.control) as control, AppIo(where.serverappio) as appio:
        assert control.list_runs().now
        assert not appio.get_run(1).HasField("run")
    with Node(where.fleet) as node:
        assert node.create()
        node.delete()


def starts(attempt: Start, where: Ports) -> None:
    """Require that an insecure server comes up and answers."""
    attempt.until(lambda: listens(where), "the ports")
    serves(where)


# -- 159 certificates ---------------------------------------------------------------------------


def test_159_no_certificates(tmp_path: Path) -> None:
    said = refusal(tmp_path)
    assert "Certificates are required" in said and "--insecure" in said
    assert all(flag.strip("-") in said for flag in CERTIFICATE_FLAGS)


@pytest.mark.parametrize("given", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)], ids=str)
def test_159_partial_set(
    tmp_path: Path, certificates: Certificates, given: tuple[int, ...]
) -> None:
    files = [certificates.ca, certificates.cert, certificates.key]
    flags = [part for i in given for part in (CERTIFICATE_FLAGS[i], str(files[i]))]
    said = refusal(tmp_path, *flags)
    assert all(flag.strip("-") in said for flag in CERTIFICATE_FLAGS)


@pytest.mark.parametrize("kind", ["missing", "directory"])
@pytest.mark.parametrize("bad", range(3), ids=CERTIFICATE_FLAGS)
def test_159_not_a_file(tmp_path: Path, certificates: Certificates, bad: int, kind: str) -> None:
    files: list[Path] = [certificates.ca, certificates.cert, certificates.key]
    files[bad] = tmp_path / "nothing"
    if kind == "directory":
        files[bad].mkdir()
    said = refusal(tmp_path, *certificate_flags(*files))
    assert CERTIFICATE_FLAGS[bad] in said or str(files[bad]) in said
    good = [i for i in range(3) if i != bad]
    assert not any(CERTIFICATE_FLAGS[i] in said or str(files[i]) in said for i in good)


def test_159_order_of_complaints(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("no-ca", "no-certificate", "no-key")]
    said = refusal(tmp_path, *certificate_flags(*files))
    assert CERTIFICATE_FLAGS[0] in said or "no-ca" in said
    assert CERTIFICATE_FLAGS[2] not in said and "no-key" not in said


def one_sentence(said: str, *named: object) -> None:
    """Require a short complaint that names what is wrong, without a trace of the code."""
    assert "Traceback" not in said, said
    assert all(str(name) in said for name in named), (named, said)
    assert len(said) < 2000, said


@reference_differs("a traceback that does not name the file")
@pytest.mark.parametrize("bad", range(3), ids=CERTIFICATE_FLAGS)
def test_159_unreadable_file(tmp_path: Path, certificates: Certificates, bad: int) -> None:
    """A file that cannot be read, also not by the superuser."""
    files: list[Path] = [certificates.ca, certificates.cert, certificates.key]
    files[bad] = Path("/proc/self/mem")
    one_sentence(refusal(tmp_path, *certificate_flags(*files)), "/proc/self/mem")


GARBAGE = {
    "empty": b"",
    "binary": bytes(range(256)),
    "text": b"this is no certificate\n",
    "broken base64": b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
    "broken der": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "broken key": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=list(GARBAGE))
@pytest.mark.parametrize("bad", range(3), ids=CERTIFICATE_FLAGS)
@reference_differs("starts with some of these and fails with a traceback on others")
def test_159_garbage_pem(
    tmp_path: Path, certificates: Certificates, bad: int, content: bytes
) -> None:
    files: list[Path] = [certificates.ca, certificates.cert, certificates.key]
    files[bad] = tmp_path / "garbage.pem"
    files[bad].write_bytes(content)
    one_sentence(refusal(tmp_path, *certificate_flags(*files)), files[bad])


@reference_differs("a traceback that names neither file")
def test_159_swapped_files(tmp_path: Path, certificates: Certificates) -> None:
    flags = certificate_flags(certificates.ca, certificates.key, certificates.cert)
    one_sentence(refusal(tmp_path, *flags), certificates.key)


def test_159_key_of_another_certificate(tmp_path: Path, certificates: Certificates) -> None:
    other = certificate_pair(tmp_path, "other")
    flags = certificate_flags(certificates.ca, certificates.cert, other.key)
    refusal(tmp_path, *flags)


@pytest.mark.hardening
def test_159_key_of_another_certificate_is_named(
    tmp_path: Path, certificates: Certificates
) -> None:
    other = certificate_pair(tmp_path, "other")
    flags = certificate_flags(certificates.ca, certificates.cert, other.key)
    one_sentence(refusal(tmp_path, *flags), other.key, certificates.cert)


@pytest.mark.hardening
def test_159_expired_certificate(tmp_path: Path, certificates: Certificates) -> None:
    old = certificate_pair(tmp_path, "old", days=(-30, -1))
    said = refusal(tmp_path, *certificate_flags(certificates.ca, old.cert, old.key))
    one_sentence(said, old.cert)
    assert "expired" in said


def test_159_insecure_wins_over_certificates(tmp_path: Path) -> None:
    where = ports()
    flags = certificate_flags(tmp_path, tmp_path, "/nothing")
    with start(tmp_path, "--insecure", *flags, where=where) as attempt:
        starts(attempt, where)
        assert "`--insecure` was set" in attempt.process.log


# -- 160 arguments of earlier releases ----------------------------------------------------------


def exit_code(said: str, code: int) -> None:
    """Require the report of a Flower exit code."""
    assert f"Exit Code: {code}\n" in said
    assert f"https://flower.ai/docs/framework/v1.22.0/en/ref-exit-codes/{code}.html" in said


@pytest.mark.parametrize("flag", ["--executor", "--executor-dir", "--executor-config"])
@pytest.mark.parametrize("joined", [False, True], ids=["apart", "joined"])
def test_160_executor(tmp_path: Path, flag: str, joined: bool) -> None:
    given = [f"{flag}=x"] if joined else [flag, "x"]
    said = refusal(tmp_path, "--insecure", *given)
    exit_code(said, 104)
    assert flag in said


@pytest.mark.parametrize("joined", [False, True], ids=["apart", "joined"])
def test_160_control_and_exec_address(tmp_path: Path, joined: bool) -> None:
    address = ports().control
    given = [f"--exec-api-address={address}"] if joined else ["--exec-api-address", address]
    said = refusal(tmp_path, "--insecure", *given)
    exit_code(said, 104)
    assert "--control-api-address" in said and "--exec-api-address" in said


def test_160_exec_address_alone(tmp_path: Path) -> None:
    where = ports()
    flags = where.flags()
    del flags["--control-api-address"]
    given = [part for pair in flags.items() for part in pair]
    with Start(
        tmp_path,
        "--insecure",
        "--isolation",
        "process",
        *given,
        "--exec-api-address",
        where.control,
    ) as attempt:
        starts(attempt, where)
        said = attempt.process.log
    assert re.search(r"WARN.*`--exec-api-address` argument is deprecated", said), said


# -- 161 addresses ------------------------------------------------------------------------------

BAD_ADDRESSES = ["nonsense", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:-1", "a:b"]

ADDRESS_FLAGS = [
    "--control-api-address",
    "--serverappio-api-address",
    "--fleet-api-address",
    "--simulationio-api-address",
    "--health-server-address",
]


@pytest.mark.parametrize(
    ("flag", "address"),
    [
        *((ADDRESS_FLAGS[0], address) for address in BAD_ADDRESSES),
        *((flag, "nonsense") for flag in ADDRESS_FLAGS[1:]),
    ],
)
def test_161_unparsable_address(tmp_path: Path, flag: str, address: str) -> None:
    said = refusal(tmp_path, "--insecure", f"{flag}={address}")
    exit_code(said, 600)
    assert f"Address ({address}) cannot be parsed." in said


@pytest.mark.parametrize("flag", [flag for flag in ADDRESS_FLAGS if "simulation" not in flag])
def test_161_port_in_use(tmp_path: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = refusal(tmp_path, "--insecure", flag, address)
    assert address in said and "already in use" in said
    assert "Traceback" not in said


def test_161_same_port_twice(tmp_path: Path) -> None:
    where = ports()
    said = refusal(tmp_path, "--insecure", "--fleet-api-address", where.control, where=where)
    assert where.control in said and "already in use" in said


@pytest.mark.parametrize("host", ["localhost", "[::1]"])
def test_161_other_forms_of_address(tmp_path: Path, host: str) -> None:
    if host == "[::1]" and not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 on this machine")
    where = ports()
    address = f"{host}:{where.control.rpartition(':')[2]}"
    with start(tmp_path, "--insecure", "--control-api-address", address, where=where) as attempt:
        attempt.until(lambda: answers(address), f"Control on {address}")


def answers(address: str) -> bool:
    """Whether Control answers on an address."""
    with Control(address) as control:
        try:
            return bool(control.list_runs(timeout=2.0).now)
        except grpc.RpcError:
            return False


# -- 162 signals --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT])
def test_162_farewell(tmp_path: Path, number: signal.Signals) -> None:
    where = ports()
    with start(tmp_path, "--insecure", where=where) as attempt:
        starts(attempt, where)
        process = attempt.process
        attempt.until(lambda: caught_signals(process.pid) >> (number - 1) & 1, "the handler")
        # Busy in every way: a held call, an idle connection, and one that never speaks.
        with (
            Node(where.fleet) as node,
            Control(where.control) as control,
            socket.create_connection(("127.0.0.1", int(where.fleet.rpartition(":")[2]))),
        ):
            node.create()
            control.list_runs()
            node.pull_future()
            began = time.monotonic()
            process.signal(number)
            assert process.wait(10.0) == 0, process.tail()
            assert time.monotonic() - began < 5.0
        assert "SuperLink terminated gracefully." in process.log
        assert not any(port_is_open(address) for address in where.flags().values())


def test_162_children_end_with_the_server(tmp_path: Path) -> None:
    where = ports()
    with start(tmp_path, "--insecure", where=where, isolation="subprocess") as attempt:
        process = attempt.process
        attempt.until(lambda: "Starting Flower SuperExec" in process.log, "the SuperExec")
        wanted = (
            f"--insecure --appio-api-address {where.serverappio} "
            f"--plugin-type serverapp --parent-pid {process.pid}"
        )
        commands = process.children().values()
        assert any(wanted in command for command in commands), commands
        wait_for(lambda: caught_signals(process.pid) >> (signal.SIGQUIT - 1) & 1, 10.0, "handlers")
        assert process.terminate() == 0
        wait_for(lambda: not session_members(process.pid), 10.0, "the children to end")


def test_162_lines_of_the_start(tmp_path: Path) -> None:
    """The lines scripts look for, in the order of section 1.6."""
    where = ports()
    with start(tmp_path, "--insecure", where=where) as attempt:
        starts(attempt, where)
        said = attempt.process.log
    lines = [
        "Starting Flower SuperLink",
        f"Flower Deployment Runtime: Starting Control API on {where.control}",
        f"Flower Deployment Runtime: Starting ServerAppIo API on {where.serverappio}",
        f"Flower Deployment Runtime: Starting Fleet API (gRPC-rere) on {where.fleet}",
    ]
    found = [said.find(line) for line in lines]
    assert -1 not in found and found == sorted(found), said


# -- 164, 165 flags that only warn --------------------------------------------------------------


def test_164_fleet_workers(tmp_path: Path) -> None:
    where = ports()
    with start(tmp_path, "--insecure", "--fleet-api-num-workers", "4", where=where) as attempt:
        starts(attempt, where)
        said = attempt.process.log
    assert re.search(r"WARN.*only 1 worker", said), said


def test_164_fleet_workers_must_be_a_number(tmp_path: Path) -> None:
    assert "--fleet-api-num-workers" in refusal(
        tmp_path, "--insecure", "--fleet-api-num-workers", "many", status=2
    )


@pytest.mark.parametrize(
    "flag", ["--auth-superlink-private-key", "--auth-superlink-public-key", "--flwr-dir"]
)
def test_165_deprecated_flag_warns(tmp_path: Path, flag: str) -> None:
    where = ports()
    with start(tmp_path, "--insecure", flag, "/no/such/file", where=where) as attempt:
        starts(attempt, where)
        said = attempt.process.log
    assert re.search(rf"WARN.*{flag}", said), said


# -- the command line as argparse reads it ------------------------------------------------------


def test_arguments_may_be_joined_and_shortened(tmp_path: Path) -> None:
    where = ports()
    with Start(
        tmp_path,
        "--insec",
        "--isol=process",
        f"--serverapp={where.serverappio}",
        "--fleet-api-a",
        where.fleet,
        f"--con={where.control}",
        "--stor",
        tmp_path / "ffs",
        "--fleet-api-t=grpc-rere",
        "--fleet-api-n=1",
        "--data=:flwr-in-memory-state:",
    ) as attempt:
        starts(attempt, where)


def test_last_of_repeated_flags_wins(tmp_path: Path) -> None:
    where = ports()
    with start(
        tmp_path, "--insecure", "--control-api-address=nonsense",
        "--control-api-address", where.control, where=where,
    ) as attempt:  # fmt: skip
        starts(attempt, where)


USAGE_ERRORS = {
    "unknown flag": (["--no-such-flag"], "--no-such-flag"),
    "enterprise flag": (["--user-auth-config", "x"], "--user-auth-config"),
    "another enterprise flag": (["--enable-event-log"], "--enable-event-log"),
    "positional": (["surplus"], "surplus"),
    "missing value": (["--storage-dir"], "--storage-dir"),
    "value of a switch": (["--insecure=yes"], "--insecure"),
    "choice": (["--isolation", "nothing"], "nothing"),
    "another choice": (["--fleet-api-type", "carrier-pigeon"], "carrier-pigeon"),
    "ambiguous prefix": (["--ssl-c", "x"], "--ssl-c"),
    "another ambiguous prefix": (["--exec", "x"], "--exec"),
}


@pytest.mark.parametrize(("flags", "named"), USAGE_ERRORS.values(), ids=list(USAGE_ERRORS))
def test_usage_error(tmp_path: Path, flags: list[str], named: str) -> None:
    said = refusal(tmp_path, "--insecure", *flags, status=2)
    assert re.search(r"\busage\b", said, re.IGNORECASE) and named in said


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(tmp_path: Path, flag: str) -> None:
    with Start(tmp_path, flag) as attempt:
        said = attempt.refusal(status=0)
    assert [name for name in FLAGS_OF_1_22 if name not in said] == []


def test_storage_that_cannot_be_written(tmp_path: Path) -> None:
    """Refused at the start, or else every FAB is refused as the CLI expects it: OK without id."""
    storage, where = tmp_path / "storage", ports()
    storage.write_text("a file, not a directory")
    with start(tmp_path, "--insecure", "--storage-dir", storage, where=where) as attempt:
        process = attempt.process
        wait_for(lambda: not process.running or listens(where), 30.0, "a decision")
        if process.running:
            with Control(where.control) as control:
                assert not control.start_run_response().HasField("run_id")
        else:
            assert process.returncode == 1
        wait_for(lambda: str(storage) in process.log, 5.0, f"the path in the log\n{process.log}")


# -- flags of flwr-quic, and what it does not offer ---------------------------------------------


@reference_differs("stock flower-superlink makes its tables beside the others")
def test_database_of_another_program(tmp_path: Path) -> None:
    """Refused with a word about it, and left as it is."""
    database = tmp_path / "state.db"
    with sqlite3.connect(database) as other:
        other.execute("CREATE TABLE letters (text)")
    before = database.read_bytes()
    with start(tmp_path, "--insecure", "--database", str(database)) as attempt:
        assert attempt.process.wait(10.0) in (1, 2)
        one_sentence(attempt.process.log, "--database")
    assert database.read_bytes() == before


@reference_differs("stock flower-superlink has no such flag")
@pytest.mark.parametrize("transport", ["quic", "carrier-pigeon"])
def test_not_offered_transport(tmp_path: Path, transport: str) -> None:
    with start(tmp_path, "--insecure", "--transport", transport) as attempt:
        assert attempt.process.wait(10.0) in (1, 2)
        one_sentence(attempt.process.log, "--transport", transport)


@reference_differs("stock flower-superlink has no such flag")
@pytest.mark.parametrize("value", ["-1", "soon", "", "inf", "nan"])
def test_hold_seconds_must_be_a_duration(tmp_path: Path, value: str) -> None:
    assert "--hold-seconds" in refusal(tmp_path, "--insecure", f"--hold-seconds={value}", status=2)


@reference_differs("a traceback")
def test_flower_not_installed(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with start(tmp_path, "--insecure", isolation="subprocess", env={"PATH": str(empty)}) as attempt:
        assert attempt.process.wait(10.0) == 1
        one_sentence(attempt.process.log, "flwr-serverapp", "flwr", "install")


@reference_differs("silently ignores the list, and lets everyone in")
def test_allow_list_where_nothing_is_authenticated(tmp_path: Path) -> None:
    """GrpcAdapter has no authentication, so an allow list beside it needs a word at least."""
    keys = tmp_path / "keys.csv"
    keys.write_text(openssh(new_key()))
    where = ports()
    with start(
        tmp_path, "--insecure", "--fleet-api-type", "grpc-adapter",
        "--auth-list-public-keys", keys, where=where,
    ) as attempt:  # fmt: skip
        wait_for(
            lambda: not attempt.process.running or port_is_open(where.fleet), 10.0, "a decision"
        )
        assert "--auth-list-public-keys" in attempt.process.log


# -- the allow list is read again when it changes -----------------------------------------------


def replace(path: Path, text: str, *, whole: bool) -> None:
    """Change a file in place, or by renaming a new one over it."""
    if whole:
        new = path.with_suffix(".new")
        new.write_text(text)
        os.replace(new, path)
    else:
        path.write_text(text)


@reference_differs("reads the list once")
@pytest.mark.parametrize("whole", [True, False], ids=["renamed", "in place"])
def test_allow_list_is_read_again(tmp_path: Path, start_superlink: Any, whole: bool) -> None:
    path, first, second = tmp_path / "keys.csv", new_key(), new_key()
    path.write_text(openssh(first) + "\n")
    link = start_superlink(args=["--auth-list-public-keys", path])

    def lets_in(key: Any) -> bool:
        with Node(link.fleet, key) as node:
            try:
                node.create()
                node.delete()
            except grpc.RpcError as error:
                assert error.details() == "Public key not recognized", error
                return False
            return True

    assert lets_in(first) and not lets_in(second)
    replace(path, f"{openssh(first)}\n{openssh(second)}\n", whole=whole)
    wait_for(lambda: lets_in(second), 15.0, "the second key to be let in")
    assert lets_in(first)
    # Something unreadable must not open the door, nor close it for those inside.
    before = len(link.log)
    replace(path, "this is no key\n", whole=whole)
    wait_for(lambda: str(path) in link.log[before:], 15.0, "a word about the broken list")
    assert lets_in(second) and not lets_in(new_key())
    replace(path, openssh(second) + "\n", whole=whole)
    wait_for(lambda: not lets_in(first), 15.0, "the first key to be locked out")
    assert lets_in(second)


@reference_differs("reads the list once")
def test_allow_list_locks_out_a_node_at_work(tmp_path: Path, start_superlink: Any) -> None:
    path, key = tmp_path / "keys.csv", new_key()
    path.write_text(openssh(key) + "\n")
    link = start_superlink(args=["--auth-list-public-keys", path, "--hold-seconds", "0"])
    with Node(link.fleet, key) as node:
        node.create()
        assert node.heartbeat()
        replace(path, openssh(new_key()) + "\n", whole=True)

        def locked_out() -> bool:
            try:
                node.heartbeat()
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error
                assert error.details() == "Public key not recognized", error
                return True
            return False

        wait_for(locked_out, 15.0, "the node to be locked out")

"""The launcher's zygote with the real packages: what it preloads, and what its children share.

It is spoken to directly, with scripts named like Flower's: such a script runs in a forked process
after everything that the program of that name begins with was imported.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
from concurrent import futures
from pathlib import Path
from typing import Any, Iterator, Sequence

import grpc
import pytest
from flwr.proto.clientappio_pb2_grpc import ClientAppIoServicer, add_ClientAppIoServicer_to_server

from harness import REPOSITORY, VENV_BIN, environment

SOURCE = REPOSITORY / "services" / "superexec" / "src" / "zygote.py"
PROGRAMS = ["flwr-clientapp", "flwr-serverapp"]


class Zygote:
    """A zygote for a script, as the launcher keeps one."""

    def __init__(self, script: Path, home: Path) -> None:
        self.script = script
        self.environment = environment(home)
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(60)
        with theirs:
            self.process = subprocess.Popen(
                [VENV_BIN / "python", "-c", SOURCE.read_text(encoding="utf-8"), script],
                stdin=theirs.fileno(),
                env=self.environment,
            )
        assert self._receive() == {"ready": True}

    def run(self, *arguments: object) -> tuple[str, str, int]:
        """Run the script in a forked process: its stdout, stderr and exit status."""
        readers, writers = zip(os.pipe(), os.pipe(), os.pipe())
        stdout, stderr, go = writers[0], writers[1], readers[2]
        pid = self._ask({"fork": [str(each) for each in arguments]}, [stdout, stderr, go])["pid"]
        for file in (stdout, stderr, go):
            os.close(file)
        os.write(writers[2], b"g")
        os.close(writers[2])
        with futures.ThreadPoolExecutor(2) as reading:
            texts = list(reading.map(_read_all, readers[:2]))
        status = os.waitstatus_to_exitcode(self._ask({"reap": pid})["status"])
        return texts[0], texts[1], status

    def close(self) -> None:
        """The end of the socket is the end of the zygote."""
        self.socket.close()
        assert self.process.wait(timeout=10) == 0

    def _ask(self, request: dict[str, Any], files: Sequence[int] = ()) -> Any:
        text = json.dumps(request).encode()
        head = struct.pack("<I", len(text))
        if files:
            socket.send_fds(self.socket, [head], list(files))
        else:
            self.socket.sendall(head)
        self.socket.sendall(text)
        return self._receive()

    def _receive(self) -> Any:
        length = struct.unpack("<I", self.socket.recv(4, socket.MSG_WAITALL))[0]
        return json.loads(self.socket.recv(length, socket.MSG_WAITALL))


def _read_all(file: int) -> str:
    with os.fdopen(file, "rb") as pipe:
        return pipe.read().decode()


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def forking(tmp_path: Path) -> Iterator[Any]:
    """Makes zygotes, for Flower's own script of a name or for one with other contents."""
    zygotes = []

    def make(program: str, code: str | None = None) -> Zygote:
        script = VENV_BIN / program
        if code is not None:
            script = tmp_path / program
            script.write_text(code, encoding="utf-8")
        zygotes.append(Zygote(script, tmp_path / "home"))
        return zygotes[-1]

    yield make
    for zygote in zygotes:
        zygote.close()


def test_two_processes_share_no_randomness_and_no_files(program: str, forking: Any) -> None:
    zygote = forking(
        program,
        "import json, os, random, secrets, sys, threading, uuid\n"
        "import numpy as np\n"
        # The files first: making a UUID of the clock may open another.
        "print(json.dumps({'files': sorted(os.listdir('/proc/self/fd')),\n"
        "  'random': [random.random(), np.random.rand(), str(uuid.uuid4()),\n"
        "  np.random.default_rng().random(), secrets.token_hex(), str(uuid.uuid1())],\n"
        "  'threads': threading.active_count(),\n"
        "  'preloaded': 'flwr' in sys.modules and 'grpc._channel' in sys.modules}))\n",
    )
    said = [json.loads(zygote.run()[0]) for _ in range(2)]
    for one, other in zip(said[0]["random"], said[1]["random"]):
        assert one != other
    for each in said:
        assert each["preloaded"]
        assert each["threads"] == 1
        assert each["files"] == ["0", "1", "2", "3"], "the fourth is the listing"


@pytest.mark.parametrize("arguments", [["--help"], [], ["--no-such-flag"], ["--insecure", "--token"]])
def test_a_forked_program_says_and_ends_as_a_started_one(
    program: str, arguments: list[str], forking: Any
) -> None:
    zygote = forking(program)
    started = subprocess.run(
        [zygote.script, *arguments],
        env=zygote.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert zygote.run(*arguments) == (started.stdout, started.stderr, started.returncode)


class _Refusing(ClientAppIoServicer):
    """Knows no token; remembers what was presented."""

    def __init__(self) -> None:
        self.tokens: list[str] = []

    def PullClientAppInputs(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.tokens.append(request.token)
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "Invalid token.")


def test_forked_processes_call_and_need_nothing_more_from_disk(forking: Any) -> None:
    script = (VENV_BIN / "flwr-clientapp").read_text(encoding="utf-8")
    tell = (
        "import atexit, sys\n"
        "before = set(sys.modules)\n"
        "atexit.register(lambda: print(*sorted(set(sys.modules) - before)))\n"
    )
    zygote = forking("flwr-clientapp", tell + script)
    servicer = _Refusing()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    add_ClientAppIoServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    tokens = ["ab" * 128, "cd" * 128]
    try:
        for token in tokens:
            address = ["--clientappio-api-address", f"127.0.0.1:{port}"]
            said, complained, status = zygote.run(
                "--insecure", *address, "--token", token, "--parent-pid", os.getpid()
            )
            assert status == 1
            assert "Invalid token." in complained
            assert said.split() == [], "to be added to what the zygote imports"
    finally:
        server.stop(None)
    assert servicer.tokens == tokens

"""The two servers that are compared, each started fresh for every sample."""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from .processes import wait_for

VENV_BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Kind:
    """One of the two: its label in reports and how its command line begins."""

    label: str
    command: tuple
    node_command: tuple
    can_hold: bool

    @classmethod
    def stock(cls, label="stock"):
        """`flower-superlink` of the Python environment that runs this program."""
        superlink, supernode = (str(VENV_BIN / f"flower-{name}") for name in ("superlink", "supernode"))
        return cls(label, (superlink,), (supernode,), can_hold=False)

    @classmethod
    def ours(cls, program, transport="grpc", label="ours"):
        """`flwr-quic superlink` and `flwr-quic supernode` over gRPC or QUIC."""
        served = {"grpc": "grpc", "quic": "grpc,quic"}[transport]
        superlink = (str(program), "superlink", "--transport", served)
        return cls(label, superlink, (str(program), "supernode", "--transport", transport), can_hold=True)

    def keeping(self):
        """The same with its state in a database, in the home of each server."""
        return replace(self, command=(*self.command, "--database", "{home}/state.db"))


class Server:
    """A running SuperLink; `with` starts and ends it.

    `hold=False` turns holding of calls off where there is such a thing. `isolation` is Flower's. `host` is
    where SuperNodes reach it; everything else is on the loopback. `enter` is called in the new process.
    """

    START_S = 60
    ATTEMPTS = 3

    def __init__(
        self, kind, children, folder, *, tls=True, hold=True, isolation="process", host="127.0.0.1", enter=None
    ):
        self.kind = kind
        self.tls_folder = folder if tls else None
        self._children = children
        self._folder = folder
        self._hold = hold
        self._isolation = isolation
        self._host = host
        self._enter = enter

    def __enter__(self):
        for attempt in range(1, self.ATTEMPTS + 1):
            try:
                self._start()
                return self
            except RuntimeError as error:  # also when another program took a free port first
                if attempt == self.ATTEMPTS:
                    raise RuntimeError(f"{self.kind.label}: {error}\n{self.log_tail()}") from None
                self._children.stop(self.process)

    def __exit__(self, kind, _error, _trace):
        self._children.stop(self.process)
        if kind is not None and issubclass(kind, Exception):
            print(f"the end of the log of {self.kind.label}:\n{self.log_tail()}", file=sys.stderr)

    @property
    def pid(self):
        """Process id of the server itself."""
        return self.process.pid

    def log_tail(self, lines=25):
        """The end of what the server wrote, for error messages."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def _start(self):
        hosts = (self._host, "127.0.0.1", "127.0.0.1")
        self.fleet, self.appio, self.control = (f"{host}:{port}" for host, port in zip(hosts, free_ports(3)))
        argv = [*self.kind.command, "--isolation", self._isolation]
        argv += ["--fleet-api-address", self.fleet, "--serverappio-api-address", self.appio]
        argv += ["--control-api-address", self.control]
        if self.tls_folder:
            argv += ["--ssl-ca-certfile", self.tls_folder / "ca.crt"]
            argv += ["--ssl-certfile", self.tls_folder / "server.crt", "--ssl-keyfile", self.tls_folder / "server.key"]
        else:
            argv += ["--insecure"]
        if self.kind.can_hold and not self._hold:
            argv += ["--hold-seconds", "0"]
        number = len(list(self._folder.glob(f"{self.kind.label}-*.log")))
        self._log = self._folder / f"{self.kind.label}-{number}.log"
        with self._log.open("wb") as log:
            home = self._folder / f"home-{self.kind.label}-{number}"
            self.argv = [str(part).replace("{home}", str(home)) for part in argv]
            self.process = self._children.spawn(
                self.argv, env=environment(home), cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=self._enter,
            )
        for address in (self.control, self.appio, self.fleet):
            wait_for(lambda at=address: _accepts(at), self.START_S, f"listening on {address}", self.process)


def environment(home):
    """Environment for Flower programs: their home is a throw-away folder, nothing is sent anywhere."""
    home.mkdir(parents=True, exist_ok=True)
    path = f"{VENV_BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": path, "FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0"}


def free_ports(count):
    """`count` different ports of the loopback that are free right now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in held]
    for listener in held:
        listener.close()
    return ports


def _accepts(address):
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True

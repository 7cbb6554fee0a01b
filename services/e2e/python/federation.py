"""A whole federation of stock Flower 1.22 programs around the SuperLink under test.

    with Federation(tmp_path, tls=certificates, nodes=2) as federation:
        app = federation.app("probe")
        run = app.start(rounds=2)               # flwr run
        run.wait_finished()
        assert run.events("reply")[0]["code"] is None
        print(app.flwr("ls").text)              # any command of the flwr command line
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import signal
import subprocess
import textwrap
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Sequence

import grpc
from flwr.proto.appio_pb2 import PullAppInputsRequest, RequestTokenRequest
from flwr.proto.control_pb2 import ListRunsRequest, StartRunRequest, StreamLogsRequest
from flwr.proto.control_pb2_grpc import ControlStub
from flwr.proto.fab_pb2 import Fab
from flwr.proto.run_pb2 import Run as RunProto
from flwr.proto.run_pb2 import UpdateRunStatusRequest
from flwr.proto.serverappio_pb2 import GetNodesRequest
from flwr.proto.serverappio_pb2_grpc import ServerAppIoStub

from harness import (
    OURS,
    REPOSITORY,
    START_SECONDS,
    STOCK,
    VENV_BIN,
    AppIoTls,
    Certificates,
    Process,
    SuperLink,
    binary,
    environment,
    free_port,
    plain,
    port_is_open,
    wait_for,
)

APPS = {
    "digits": REPOSITORY / "examples" / "digits",
    "probe": Path(__file__).resolve().parent / "apps" / "probe",
}
RUN_SECONDS = 90.0
SIMULATED_NODES = 2


# -- SuperNodes and SuperExecs ------------------------------------------------------------------


class SuperNode(Process):
    """A SuperNode, ``flower-supernode`` unless ``kind`` is ours; in process isolation with a
    SuperExec of its own, whose kind is ``launcher``."""

    def __init__(
        self,
        link: SuperLink,
        directory: Path,
        name: str = "supernode",
        config: str = "",
        isolation: str = "subprocess",
        args: Sequence[object] = (),
        kind: str = STOCK,
        launcher: str = STOCK,
        appio: Optional[AppIoTls] = None,
        clientappio: Optional[str] = None,
    ) -> None:
        self.home = Path(directory) / f"{name}-home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.clientappio = clientappio or f"127.0.0.1:{free_port()}"
        argv: list[object] = [*supernode_command(kind), "--superlink", link.fleet]
        argv += ["--clientappio-api-address", self.clientappio, "--isolation", isolation]
        argv += ["--insecure"] if link.tls is None else ["--root-certificates", link.tls.ca]
        argv += ["--node-config", config] if config else []
        argv += appio.server_flags() if appio is not None else []
        self.command = [*argv, *args]
        self.directory = directory
        super().__init__(name, self.command, directory, environment(self.home))
        self.superexec: Optional[Process] = None
        self._launcher, self._appio = launcher, appio
        if isolation == "process":
            self.restart_superexec()

    def restart_superexec(self) -> None:
        """Start the SuperExec of process isolation, after the one before has ended."""
        self.superexec = superexec(
            "clientapp",
            self.clientappio,
            self.directory,
            self.home,
            name=f"{self.name}-superexec",
            kind=self._launcher,
            appio=self._appio,
        )

    def close(self) -> None:
        """End the SuperNode and its SuperExec."""
        if self.superexec is not None:
            self.superexec.close()
        super().close()

    def again(self) -> Process:
        """Start it once more, after it has ended, with the same command line."""
        return Process(f"{self.name}-again", self.command, self.directory, environment(self.home))

    def events(self, event: str) -> list[dict[str, Any]]:
        """What its ClientApps have emitted so far (they log into the launcher's log)."""
        launcher = self.superexec or self
        return [found for found in parse_events(launcher.log) if found["event"] == event]


def supernode_command(kind: str) -> list[str]:
    """The command line of a SuperNode without its flags."""
    if kind == STOCK:
        return [str(VENV_BIN / "flower-supernode")]
    return [str(binary()), "supernode"]


def superexec(
    plugin: str,
    address: str,
    directory: Path,
    home: Path,
    name: str = "superexec",
    kind: str = STOCK,
    appio: Optional[AppIoTls] = None,
    args: Sequence[object] = (),
) -> Process:
    """A SuperExec for process isolation, ``flower-superexec`` unless ``kind`` is ours."""
    argv: list[object] = [VENV_BIN / "flower-superexec"]
    if kind == OURS:
        argv = [binary(), "superexec"]
    argv += ["--insecure"] if appio is None else appio.launcher_flags()
    argv += ["--plugin-type", plugin, "--appio-api-address", address, *args]
    return Process(name, argv, directory, environment(home))


# -- the command line ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Output:
    """What a finished command printed (standard output and error together) and its status."""

    text: str
    status: int

    def json(self) -> Any:
        """The JSON document in the output."""
        return json.loads(self.text[self.text.index("{") :])


class App:
    """A copy of an app, and the ``flwr`` command line in it.

    ``nodes`` are the SuperNodes that its runs need: when one ends, waiting for a run ends, too.
    """

    def __init__(
        self, source: Path, directory: Path, link: SuperLink, home: Path, nodes: list[SuperNode]
    ) -> None:
        self.directory = directory
        self.link = link
        self.home = home
        self.nodes = nodes
        if not directory.exists():
            shutil.copytree(source, directory, ignore=shutil.ignore_patterns("__pycache__"))
        project = directory / "pyproject.toml"
        text = project.read_text(encoding="utf-8").partition("[tool.flwr.federations]")[0]
        project.write_text(text + self._federations(), encoding="utf-8")

    def _federations(self) -> str:
        lines = ["[tool.flwr.federations]", 'default = "test"', "[tool.flwr.federations.test]"]
        lines.append(f'address = "{self.link.control}"')
        if self.link.tls is None:
            lines.append("insecure = true")
        else:
            lines.append(f'root-certificates = "{self.link.tls.ca}"')
        if self.link.simulation:
            lines.append(f"options.num-supernodes = {SIMULATED_NODES}")
        return "\n".join(lines) + "\n"

    def flwr(self, *args: object, timeout: float = 60.0) -> Output:
        """Run ``flwr ARGS`` in the app's folder, to its end.

        Now and then the command line has said everything and then deadlocks in grpcio's channel
        destructor, whatever the server. That is recognised by its stack; the text counts, and
        the status is only known after another try, which commands that change nothing get.
        """
        for _ in range(3):
            output, stuck = self._flwr_once([str(arg) for arg in args], timeout)
            if not stuck or args[0] in ("run", "stop"):
                break
        return output

    def _flwr_once(self, args: list[str], timeout: float) -> tuple[Output, bool]:
        with subprocess.Popen(
            [str(VENV_BIN / "flwr"), *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=str(self.directory),
            env=environment(self.home, PYTHONFAULTHANDLER="1"),
        ) as process:
            try:
                printed, _ = process.communicate(timeout=timeout)
                return Output(plain(printed.decode(errors="replace")), process.returncode), False
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)
                printed, _ = process.communicate()
        text, _, stack = plain(printed.decode(errors="replace")).partition("Fatal Python error")
        assert re.search(r"_unsubscribe_all\n.*in __del__", stack), (
            f"flwr {' '.join(args)} did not end within {timeout:.0f} s\n{text}\n{stack}"
        )
        return Output(text, 0), True

    def flwr_background(self, name: str, *args: object) -> Process:
        """Start ``flwr ARGS`` in the app's folder; the caller closes it."""
        argv = [VENV_BIN / "flwr", *args]
        return Process(name, argv, self.directory, environment(self.home))

    def start(self, **config: object) -> "Run":
        """``flwr run`` with run-config overrides (underscores become hyphens)."""
        output = self.flwr("run", ".", *run_config(config))
        return Run(self.link, started_run_id(output.text), self.nodes)


def run_config(config: dict[str, object]) -> list[str]:
    """The ``-c`` arguments for overrides, in TOML syntax."""
    names = {key.replace("_", "-"): value for key, value in config.items()}
    joined = " ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in names.items())
    return ["-c", joined] if joined else []


def started_run_id(text: str) -> int:
    """The run id in what ``flwr run`` printed."""
    match = re.search(r"Successfully started run (\d+)", text)
    assert match, f"flwr run did not start a run:\n{text}"
    return int(match.group(1))


def parse_events(text: str) -> list[dict[str, Any]]:
    """The probe app's events in a log."""
    return [json.loads(line) for line in re.findall(r"PROBE (\{.*\})$", plain(text), re.MULTILINE)]


# -- runs ---------------------------------------------------------------------------------------


class Run:
    """A started run, watched through the Control service."""

    def __init__(
        self, link: SuperLink, run_id: int, nodes: Optional[list[SuperNode]] = None
    ) -> None:
        self.link = link
        self.run_id = run_id
        self._nodes = [] if nodes is None else nodes

    def info(self) -> RunProto:
        """The run as ``flwr ls`` sees it."""
        with control(self.link) as stub:
            found = stub.ListRuns(ListRunsRequest(run_id=self.run_id), timeout=10)
        return found.run_dict[self.run_id]

    @property
    def status(self) -> str:
        """Such as ``running`` or ``finished:completed``."""
        status = self.info().status
        return ":".join(part for part in (status.status, status.sub_status) if part)

    @property
    def details(self) -> str:
        """Why the run failed, if it did."""
        return str(self.info().status.details)

    def wait_status(self, prefix: str, timeout: float = RUN_SECONDS) -> str:
        """The status, once it starts with ``prefix``."""
        last = [""]

        def reached() -> bool:
            last[0] = self.status
            return last[0].startswith(prefix) or self._check_nodes()

        try:
            wait_for(reached, timeout, f"run {self.run_id} to be {prefix}", interval=0.2)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {last[0]}; its log:\n{self.log()}") from None
        return last[0]

    def _check_nodes(self) -> bool:
        for node in self._nodes:
            assert node.running, f"{node.name} ended with {node.returncode}\n{node.tail()}"
        return False

    def wait_finished(self, timeout: float = RUN_SECONDS) -> str:
        """``finished:...``, once the run has ended."""
        return self.wait_status("finished", timeout)

    def wait_completed(self, timeout: float = RUN_SECONDS) -> "Run":
        """The run itself, once it has ended well."""
        status = self.wait_finished(timeout)
        assert status == "finished:completed", f"{status} {self.details}\n{self.log()}"
        return self

    def check_round(self, replies: int = 1, timeout: float = 120) -> None:
        """Waits for a run of one round and compares what was sent, seen, returned and received."""
        self.wait_completed(timeout)
        (sent,) = self.events("round")
        received = self.events("reply")
        assert len(received) == replies
        for reply in received:
            assert reply["code"] is None, reply
            assert reply["saw"]["bytes"] == sent["bytes"]
            assert reply["saw"]["checksum"] == sent["checksum"]
            assert reply["saw"]["returned"] == reply["checksum"]

    def log(self, seconds: float = 2.0) -> str:
        """Everything the ServerApp has logged so far."""
        parts = []
        with control(self.link) as stub:
            request = StreamLogsRequest(run_id=self.run_id, after_timestamp=0.0)
            try:
                for response in stub.StreamLogs(request, timeout=seconds):
                    parts.append(response.log_output)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise
        return plain("".join(parts))

    def events(self, event: str) -> list[dict[str, Any]]:
        """The probe's events of one kind so far."""
        return [found for found in parse_events(self.log()) if found["event"] == event]

    def wait_event(self, event: str, timeout: float = RUN_SECONDS) -> dict[str, Any]:
        """The probe's first event of one kind."""

        def happened() -> Any:
            return self.events(event) or self._check_nodes()

        return wait_for(happened, timeout, f"event {event} of run {self.run_id}")[0]


class control:  # pylint: disable=invalid-name
    """A Control stub over a channel of its own: ``with control(link) as stub``."""

    def __init__(self, link: SuperLink) -> None:
        if link.tls is None:
            self._channel = grpc.insecure_channel(link.control)
        else:
            roots = grpc.ssl_channel_credentials(link.tls.ca.read_bytes())
            self._channel = grpc.secure_channel(link.control, roots)

    def __enter__(self) -> ControlStub:
        return ControlStub(self._channel)

    def __exit__(self, *_: object) -> None:
        self._channel.close()


class Roster:
    """Which nodes are online, asked as a ServerApp would; for SuperLinks without a SuperExec."""

    def __init__(self, link: SuperLink) -> None:
        with control(link) as stub:
            started = stub.StartRun(StartRunRequest(fab=_empty_fab()), timeout=10)
        self._run_id = started.run_id
        self._channel = grpc.insecure_channel(link.serverappio)
        self._stub = ServerAppIoStub(self._channel)
        request = RequestTokenRequest(run_id=self._run_id)
        token = self._stub.RequestToken(request, timeout=10).token
        self._stub.PullAppInputs(PullAppInputsRequest(token=token), timeout=10)
        running = UpdateRunStatusRequest(run_id=self._run_id)
        running.run_status.status = "running"
        self._stub.UpdateRunStatus(running, timeout=10)

    def online(self) -> set[int]:
        """The ids of the nodes that are online now."""
        answer = self._stub.GetNodes(GetNodesRequest(run_id=self._run_id), timeout=10)
        return {node.node_id for node in answer.nodes}

    def wait_online(self, count: int, timeout: float = START_SECONDS) -> set[int]:
        """The ids, once exactly so many nodes are online."""
        wait_for(lambda: len(self.online()) == count, timeout, f"{count} nodes to be online")
        return self.online()

    def close(self) -> None:
        """Give the channel back; the run stays running."""
        self._channel.close()


def _empty_fab() -> Fab:
    project = """
        project = {name = "roster", version = "1.0.0"}
        tool.flwr.app = {publisher = "test", components = {serverapp = "a:b", clientapp = "a:b"}}
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("pyproject.toml", textwrap.dedent(project))
    data = content.getvalue()
    return Fab(hash_str=hashlib.sha256(data).hexdigest(), content=data)


# -- all of it ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cast:
    """Whose program plays each role; the launchers count in process isolation only."""

    superlink: Optional[str] = None
    supernode: str = STOCK
    server_launcher: str = STOCK
    client_launcher: str = STOCK

    @property
    def server_tls(self) -> bool:
        """Whether ServerAppIo can be encrypted: stock programs can neither serve nor ask so."""
        return self.superlink != STOCK and self.server_launcher == OURS

    @property
    def client_tls(self) -> bool:
        """Whether ClientAppIo can be encrypted."""
        return self.supernode == OURS and self.client_launcher == OURS


class Federation:
    """A SuperLink with SuperNodes, all online on entry, all ended on exit.

    Node ``i`` of ``n`` gets the node config ``partition-id=i num-partitions=n``. ``node_isolation``
    is the SuperLink's unless given. ``cast`` says whose program plays each role, ``transport`` what the
    SuperLink serves Fleet over. All addresses are
    known before anything starts.
    """

    def __init__(
        self,
        directory: Path,
        tls: Optional[Certificates] = None,
        isolation: str = "subprocess",
        nodes: int = 2,
        node_isolation: Optional[str] = None,
        superlink_args: Sequence[object] = (),
        node_args: Sequence[object] = (),
        superexec_args: Sequence[object] = (),
        cast: Optional["Cast"] = None,
        appio: Optional[AppIoTls] = None,
        transport: str = "grpc",
    ) -> None:
        self.directory = directory
        self.cast = cast or Cast()
        self.appio = appio
        self.link = SuperLink(
            directory,
            tls=tls,
            isolation=isolation,
            args=superlink_args,
            kind=self.cast.superlink,
            appio=appio if self.cast.server_tls and isolation == "process" else None,
            transport=transport,
        )
        self.node_isolation = node_isolation or isolation
        self.clientappio = [f"127.0.0.1:{free_port()}" for _ in range(nodes)]
        self.node_args = list(node_args)
        self.superexec_args = list(superexec_args)
        self.nodes: list[SuperNode] = []
        self.superexec: Optional[Process] = None
        self._stack = ExitStack()
        self._apps = 0

    def app(self, name: str) -> App:
        """A fresh copy of one of ``APPS``."""
        self._apps += 1
        home = self.directory / "cli-home"
        home.mkdir(exist_ok=True)
        target = self.directory / f"{name}-{self._apps}"
        return App(APPS[name], target, self.link, home, self.nodes)

    def add_node(
        self,
        name: str,
        config: str = "",
        args: Sequence[object] = (),
        clientappio: Optional[str] = None,
        kind: Optional[str] = None,
    ) -> SuperNode:
        """Start one more SuperNode, of ``kind`` or as cast; the federation ends it."""
        is_encrypted = self.cast.client_tls and self.node_isolation == "process"
        node = SuperNode(
            self.link,
            self.directory,
            name,
            config,
            self.node_isolation,
            [*self.node_args, *args],
            kind=kind or self.cast.supernode,
            launcher=self.cast.client_launcher,
            appio=self.appio if is_encrypted else None,
            clientappio=clientappio,
        )
        self._stack.callback(node.close)
        self.nodes.append(node)
        return node

    def kill(self, node: SuperNode) -> None:
        """SIGKILL a SuperNode that no run needs any more."""
        self.nodes.remove(node)
        node.kill()

    def __enter__(self) -> "Federation":
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _start(self) -> None:
        self._stack.callback(self.link.close)
        self.link.start()
        if self.link.isolation == "process":
            self.superexec = superexec(
                "serverapp",
                self.link.serverappio,
                self.directory,
                self.link.home,
                kind=self.cast.server_launcher,
                appio=self.link.appio,
                args=self.superexec_args,
            )
            self._stack.callback(self.superexec.close)
        for index, clientappio in enumerate(self.clientappio):
            config = f"partition-id={index} num-partitions={len(self.clientappio)}"
            self.add_node(f"supernode-{index}", config, clientappio=clientappio)
        for node in self.nodes:
            address = node.clientappio
            wait_for(lambda: port_is_open(address), START_SECONDS, f"{node.name} to listen")

    def __exit__(self, *_: object) -> None:
        self._stack.close()

"""Protocol section 9.6: what a SuperExec launches, when it ends, and what it says."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from harness import (
    OURS,
    STOCK,
    VENV_BIN,
    Certificates,
    Process,
    SuperLink,
    binary,
    environment,
    free_port,
    make_certificates,
    port_is_open,
    wait_for,
)
from scripted import ScriptedSuperLink
from scripted_appio import ScriptedAppIo
from site_under_test import Site
from startup import Pair, certificate_pair
from wire import Control, instruction, make_fab

PROGRAMS = {
    "clientapp": ("flwr-clientapp", "--clientappio-api-address"),
    "serverapp": ("flwr-serverapp", "--serverappio-api-address"),
    "simulation": ("flwr-simulation", "--simulationio-api-address"),
}

FAKE = """\
#!/bin/sh
(echo "$0"; for part in "$@"; do echo "$part"; done) > "{launches}/$$.part"
mv "{launches}/$$.part" "{launches}/$$"
{then}
"""


class Fakes:
    """Programs on PATH that write their command line and do as the test says."""

    def __init__(self, directory: Path, then: str = "exec sleep 600") -> None:
        self.folder = directory / "bin"
        self.launches = directory / "launches"
        for folder in (self.folder, self.launches):
            folder.mkdir()
        for program, _ in PROGRAMS.values():
            script = self.folder / program
            script.write_text(FAKE.format(launches=self.launches, then=then))
            script.chmod(0o755)

    @property
    def path(self) -> str:
        """PATH with the fake programs first."""
        return f"{self.folder}:{VENV_BIN}:/usr/bin:/bin"

    def all(self) -> dict[int, list[str]]:
        """The command lines so far, by process id."""
        found = {}
        for file in self.launches.iterdir():
            if file.name.isdigit():
                found[int(file.name)] = file.read_text().splitlines()
        return found

    def wait(self, count: int = 1) -> dict[int, list[str]]:
        """The command lines, once there are so many."""
        wait_for(lambda: len(self.all()) >= count, 30, f"{count} launches")
        return self.all()


class SuperExec(Process):
    """A SuperExec, ours unless `kind` says otherwise."""

    def __init__(
        self,
        address: str,
        directory: Path,
        *args: object,
        plugin: str = "clientapp",
        kind: str = OURS,
        tls: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        argv = [VENV_BIN / "flower-superexec"] if kind == STOCK else [binary(), "superexec"]
        argv += ["--insecure"] if tls is None else ["--root-certificates", tls]
        argv += ["--appio-api-address", address, "--plugin-type", plugin, *args]
        home = directory / "home"
        home.mkdir(exist_ok=True)
        super().__init__("superexec", argv, directory, environment(home, **(env or {})))


# -- launch lines -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [STOCK, OURS])
@pytest.mark.parametrize("plugin", PROGRAMS)
def test_122_launch_lines(closing: ExitStack, tmp_path: Path, plugin: str, kind: str) -> None:
    """The line of protocol 1.4, argument for argument, from the stock SuperExec and from ours."""
    daemon, fakes = closing.enter_context(ScriptedAppIo(plugin)), Fakes(tmp_path)
    launcher = SuperExec(
        daemon.address,
        tmp_path,
        *("--flwr-dir", tmp_path),
        plugin=plugin,
        kind=kind,
        env={"PATH": fakes.path},
    )
    closing.enter_context(launcher)
    token = daemon.wait_launched(daemon.launch())
    ((_, line),) = fakes.wait().items()
    program, flag = PROGRAMS[plugin]
    assert Path(line[0]).name == program
    assert line[1:] == [
        "--insecure",
        *(flag, daemon.address),
        *("--token", token),
        *("--parent-pid", str(launcher.pid)),
        *("--flwr-dir", str(tmp_path)),
    ]


HOMES = {
    "FLWR_HOME": ({"FLWR_HOME": "{0}/f", "XDG_DATA_HOME": "{0}/x"}, "{0}/missing", "{0}/f"),
    "relative": ({"FLWR_HOME": "{0}/f"}, ".", None),
    "XDG_DATA_HOME": (
        {"FLWR_HOME": "", "XDG_DATA_HOME": "{0}/x", "HOME": "{0}/h"}, None, "{0}/x/.flwr",
    ),
    "HOME": ({"FLWR_HOME": "", "XDG_DATA_HOME": "", "HOME": "{0}/h"}, None, "{0}/h/.flwr"),
}  # fmt: skip
"""Variables, the flag, and what comes of it; an empty variable is a path for stock Flower."""


@pytest.mark.parametrize(
    ("kind", "case"),
    [*((OURS, case) for case in HOMES), (STOCK, "FLWR_HOME"), (STOCK, "relative")],
)
def test_122_flwr_dir_is_resolved(
    closing: ExitStack, tmp_path: Path, kind: str, case: str
) -> None:
    """The flag if it is a directory, else Flower's home, as in protocol 7.2."""
    variables, given, expected = HOMES[case]
    daemon, fakes = closing.enter_context(ScriptedAppIo()), Fakes(tmp_path)
    env = {key: value.format(tmp_path) for key, value in variables.items()}
    flags = [] if given is None else ["--flwr-dir", given.format(tmp_path)]
    launcher = SuperExec(
        daemon.address, tmp_path, *flags, kind=kind, env={**env, "PATH": fakes.path}
    )
    closing.enter_context(launcher)
    daemon.launch()
    ((_, line),) = fakes.wait().items()
    at = line.index("--flwr-dir") + 1
    resolved = (tmp_path / line[at]).resolve()
    assert resolved == (tmp_path if expected is None else Path(expected.format(tmp_path)))


def test_122_apps_of_several_runs_have_a_process_each(
    closing: ExitStack, tmp_path: Path
) -> None:
    """Every launch has its own process and token; a run that was claimed is launched once."""
    daemon, fakes = closing.enter_context(ScriptedAppIo()), Fakes(tmp_path)
    closing.enter_context(SuperExec(daemon.address, tmp_path, env={"PATH": fakes.path}))
    runs = [daemon.launch() for _ in range(4)]
    lines = fakes.wait(len(runs)).values()
    tokens = [line[line.index("--token") + 1] for line in lines]
    assert sorted(tokens) == sorted(daemon.tokens[run_id] for run_id in runs)


def test_123_any_address_becomes_loopback(closing: ExitStack, tmp_path: Path) -> None:
    """A daemon on 0.0.0.0 tells its own SuperExec 127.0.0.1.

    A stock SuperNode passes 0.0.0.0 on, which reaches the same socket where it reaches any.
    """
    fakes = Fakes(tmp_path)
    link = closing.enter_context(ScriptedSuperLink())
    ports = {name: free_port() for name in ("serverappio", "clientappio")}
    env = {"PATH": fakes.path}
    daemons = {
        "serverappio": [
            "superlink", "--insecure", "--serverappio-api-address",
            f"0.0.0.0:{ports['serverappio']}",
            *("--fleet-api-address", f"127.0.0.1:{free_port()}"),
            *("--control-api-address", f"127.0.0.1:{free_port()}"),
        ],
        "clientappio": [
            "supernode", "--insecure", "--clientappio-api-address",
            f"0.0.0.0:{ports['clientappio']}", "--superlink", link.fleet,
        ],
    }  # fmt: skip
    for name, flags in daemons.items():
        argv = [binary(), *flags]
        daemon = Process(name, argv, tmp_path, environment(tmp_path, **env))
        closing.enter_context(daemon)

        def told() -> list[str]:
            lines = daemon.children().values()
            return [line for line in lines if " superexec " in line]

        (line,) = wait_for(told, 30, "its SuperExec")
        found = re.search(r"--appio-api-address (\S+)", line)
        assert found and found.group(1) == f"127.0.0.1:{ports[name]}", line


# -- its end ------------------------------------------------------------------------------------


def test_124_it_ends_with_its_parent_and_apps_follow(closing: ExitStack, tmp_path: Path) -> None:
    """Within 1 s after the parent vanished; stock apps, warm or at work, within a second more."""
    daemon = closing.enter_context(ScriptedAppIo())
    parent = closing.enter_context(Process("parent", ["sleep", "600"], tmp_path, None))
    launcher = SuperExec(daemon.address, tmp_path, "--parent-pid", parent.pid)
    closing.enter_context(launcher)
    token = daemon.wait_launched(daemon.launch())
    wait_for(lambda: token in daemon.inputs, 40, "the app to ask for its inputs")
    assert launcher.children()
    parent.kill()
    gone = time.monotonic()
    assert launcher.wait(5) == 0
    assert time.monotonic() - gone < 1.0
    wait_for(lambda: not launcher.children(), 3, "its apps to end")


def test_124_a_parent_that_never_was(tmp_path: Path, closing: ExitStack) -> None:
    """A parent that is gone already ends it at the start."""
    daemon = closing.enter_context(ScriptedAppIo())
    with subprocess.Popen([sys.executable, "-c", ""]) as parent:
        parent.wait()
    launcher = SuperExec(daemon.address, tmp_path, "--parent-pid", parent.pid)
    closing.enter_context(launcher)
    assert launcher.wait(10) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_162_signals_end_it_and_its_apps(
    closing: ExitStack, tmp_path: Path, number: int
) -> None:
    """Status 0 and the farewell line; no app is left, not even one that does not listen."""
    daemon, fakes = closing.enter_context(ScriptedAppIo()), Fakes(tmp_path)
    launcher = SuperExec(daemon.address, tmp_path, env={"PATH": fakes.path})
    closing.enter_context(launcher)
    daemon.launch()
    fakes.wait()
    launcher.signal(number)
    assert launcher.wait(15) == 0
    assert "SuperExec terminated gracefully." in launcher.log
    assert not launcher.children()


def test_162_signals_end_it_while_its_daemon_is_away(tmp_path: Path, closing: ExitStack) -> None:
    """Status 0 and the farewell line, whatever it waits for."""
    launcher = closing.enter_context(SuperExec(f"127.0.0.1:{free_port()}", tmp_path))
    launcher.wait_log("(?i)no launches for the moment|connect")
    asked = time.monotonic()
    assert launcher.terminate() == 0
    assert time.monotonic() - asked < 2.0
    assert "SuperExec terminated gracefully." in launcher.log


def test_126_finished_children_are_reaped(closing: ExitStack, tmp_path: Path) -> None:
    """Apps that end at once, well or badly, leave no zombie."""
    daemon = closing.enter_context(ScriptedAppIo())
    fakes = Fakes(tmp_path, then="exit $(($$ % 2))")
    launcher = SuperExec(daemon.address, tmp_path, env={"PATH": fakes.path})
    closing.enter_context(launcher)
    for _ in range(6):
        daemon.launch()
    fakes.wait(6)
    wait_for(lambda: not children_of(launcher.pid), 10, "the children to be reaped")
    assert launcher.running


def children_of(parent: int) -> list[str]:
    """The state and id of every child of a process, zombies among them. Linux only."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(f"{fields[0]} {entry.name}")
    return found


# -- a stock SuperExec at our daemons -----------------------------------------------------------


def test_127_a_stock_superexec_drives_a_supernode(
    superlink: ScriptedSuperLink, site: Site, closing: ExitStack, tmp_path: Path
) -> None:
    """It is told of the run and gets a token that opens the message."""
    sent = superlink.send(instruction(superlink.run(make_fab()), superlink.node_id))
    token = stock_launch(closing, tmp_path, site.clientappio, "clientapp")
    with site.peer() as app:
        app.answer(app.begin(token))
    superlink.wait_reply(sent)


def test_127_a_stock_superexec_drives_a_superlink(
    start_superlink: Callable[..., SuperLink], closing: ExitStack, tmp_path: Path
) -> None:
    """It is told of the run and gets a token."""
    link = start_superlink()
    with Control(link.control) as control:
        control.start_run(make_fab())
        assert stock_launch(closing, tmp_path, link.serverappio, "serverapp")


def stock_launch(closing: ExitStack, directory: Path, address: str, plugin: str) -> str:
    """Let a stock SuperExec launch a fake app; returns the app's token."""
    fakes = Fakes(directory)
    launcher = SuperExec(
        address, directory, plugin=plugin, kind=STOCK, env={"PATH": fakes.path}
    )
    closing.enter_context(launcher)
    ((_, line),) = fakes.wait().items()
    return line[line.index("--token") + 1]


# -- what it says when it cannot work -----------------------------------------------------------


def test_125_an_unknown_plugin_type_is_refused(tmp_path: Path, closing: ExitStack) -> None:
    """Status 2, and the list of those that there are."""
    launcher = closing.enter_context(SuperExec("127.0.0.1:1", tmp_path, plugin="gradient"))
    assert launcher.wait(10) == 2
    assert all(plugin in launcher.log for plugin in PROGRAMS)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:0", "127.0.0.1:x", ""])
def test_161_an_address_that_is_none(tmp_path: Path, closing: ExitStack, address: str) -> None:
    """Code 600, status 1."""
    launcher = closing.enter_context(SuperExec(address, tmp_path))
    assert launcher.wait(10) == 1
    assert "Exit Code: 600" in launcher.log


def test_125_without_insecure_it_speaks_tls(tmp_path: Path, closing: ExitStack) -> None:
    """Ours has TLS where stock Flower ends with code 602; in the clear it says what to change."""
    daemon = closing.enter_context(ScriptedAppIo())
    argv = [binary(), "superexec", "--appio-api-address", daemon.address]
    argv += ["--plugin-type", "clientapp"]
    launcher = Process("superexec", argv, tmp_path, environment(tmp_path))
    closing.enter_context(launcher)
    launcher.wait_log("connect with --insecure")
    assert not daemon.asked


def test_a_missing_program_says_what_to_install(tmp_path: Path, closing: ExitStack) -> None:
    launcher = SuperExec("127.0.0.1:9094", tmp_path, env={"PATH": str(tmp_path)})
    closing.enter_context(launcher)
    assert launcher.wait(10) == 1
    assert "flwr-clientapp is not on PATH" in launcher.log
    assert "pip install flwr==1.22.0" in launcher.log


def test_health(tmp_path: Path, closing: ExitStack) -> None:
    """The health service answers from the start, also while the daemon is away."""
    health = f"127.0.0.1:{free_port()}"
    flags = ("--health-server-address", health)
    closing.enter_context(SuperExec(f"127.0.0.1:{free_port()}", tmp_path, *flags))
    wait_for(lambda: port_is_open(health), 10, "the health service")
    with grpc.insecure_channel(health) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=10) == b"\x08\x01"


def signed_for(directory: Path, name: str, days: tuple[float, float] = (-1, 1)) -> Pair:
    """A certificate for localhost that is its own CA."""
    return certificate_pair(directory / "certificates", name, days=days)


def test_tls_with_a_wrong_ca_is_explained(tmp_path: Path, closing: ExitStack) -> None:
    other = make_certificates(tmp_path / "other")
    files = make_certificates(tmp_path / "served")
    daemon = closing.enter_context(ScriptedAppIo(pair=Pair(files.cert, files.key)))
    launcher = closing.enter_context(SuperExec(daemon.address, tmp_path, tls=other.ca))
    launcher.wait_log(f"not signed by .*{re.escape(str(other.ca))}", 20)
    assert not daemon.asked


def test_tls_with_a_wrong_name_is_explained(tmp_path: Path, closing: ExitStack) -> None:
    pair = signed_for(tmp_path, "localhost-only")
    daemon = closing.enter_context(ScriptedAppIo(pair=pair))
    launcher = closing.enter_context(SuperExec(daemon.address, tmp_path, tls=pair.cert))
    launcher.wait_log("not valid for 127.0.0.1 but for localhost", 20)
    assert not daemon.asked
    by_name = daemon.address.replace("127.0.0.1", "localhost")
    closing.enter_context(SuperExec(by_name, tmp_path, tls=pair.cert))
    wait_for(lambda: daemon.asked, 20, "the right name to do")


def test_tls_with_an_expired_certificate_is_explained(tmp_path: Path, closing: ExitStack) -> None:
    pair = signed_for(tmp_path, "expired", (-3, -1))
    daemon = closing.enter_context(ScriptedAppIo(pair=pair))
    by_name = daemon.address.replace("127.0.0.1", "localhost")
    launcher = closing.enter_context(SuperExec(by_name, tmp_path, tls=pair.cert))
    launcher.wait_log(r"certificate expired on 20\d\d-", 20)
    assert not daemon.asked


def test_tls_to_a_server_without_is_explained(
    tmp_path: Path, closing: ExitStack, certificates: Certificates
) -> None:
    daemon = closing.enter_context(ScriptedAppIo())
    launcher = closing.enter_context(SuperExec(daemon.address, tmp_path, tls=certificates.ca))
    launcher.wait_log("without TLS|speaks no TLS", 20)
    assert "--insecure" in launcher.log
    assert not daemon.asked


def test_plain_text_to_a_server_with_tls_is_explained(
    tmp_path: Path, closing: ExitStack, certificates: Certificates
) -> None:
    pair = Pair(certificates.cert, certificates.key)
    daemon = closing.enter_context(ScriptedAppIo(pair=pair))
    launcher = closing.enter_context(SuperExec(daemon.address, tmp_path))
    launcher.wait_log("TLS", 20)
    assert not daemon.asked


def test_tls_apps_reach_the_daemon_through_a_relay(
    closing: ExitStack, tmp_path: Path, certificates: Certificates
) -> None:
    """The app is told a loopback address and a token that is not the daemon's."""
    pair = Pair(certificates.cert, certificates.key)
    daemon, fakes = closing.enter_context(ScriptedAppIo(pair=pair)), Fakes(tmp_path)
    launcher = SuperExec(
        daemon.address,
        tmp_path,
        *("--warm-apps", "off"),
        tls=certificates.ca,
        env={"PATH": fakes.path},
    )
    closing.enter_context(launcher)
    token = daemon.wait_launched(daemon.launch())
    ((_, line),) = fakes.wait().items()
    told = line[line.index("--clientappio-api-address") + 1]
    assert told.startswith("127.0.0.1:") and told != daemon.address
    assert port_is_open(told)
    assert token not in line and re.fullmatch("[0-9a-f]{256}", line[line.index("--token") + 1])


@pytest.mark.parametrize("secret", [None, "wrong"])
def test_a_wrong_or_missing_join_secret_is_explained(
    superlink: ScriptedSuperLink,
    start_site: Callable[..., Site],
    closing: ExitStack,
    tmp_path: Path,
    certificates: Certificates,
    secret: str | None,
) -> None:
    """Whoever starts a SuperExec reads which flag is missing, once; the right secret then does."""
    right, wrong = (new_secret(tmp_path / name) for name in ("right", "wrong"))
    site = start_site(
        "--appio-ssl-certfile", certificates.cert,
        "--appio-ssl-keyfile", certificates.key,
        "--appio-ssl-ca-certfile", certificates.ca,
        "--appio-join-secret-file", right,
    )  # fmt: skip
    fakes = Fakes(tmp_path)
    superlink.send(instruction(superlink.run(make_fab()), superlink.node_id))

    def start(*flags: object) -> SuperExec:
        launcher = SuperExec(
            site.clientappio,
            tmp_path,
            *("--warm-apps", "off", *flags),
            tls=certificates.ca,
            env={"PATH": fakes.path},
        )
        closing.enter_context(launcher)
        return launcher

    refused = start(*([] if secret is None else ["--appio-join-secret-file", wrong]))
    refused.wait_log("--appio-join-secret-file", 20)
    assert refused.running and not fakes.all()
    for file in (right, wrong):
        assert file.read_text().strip() not in refused.log + site.log
    refused.close()
    start("--appio-join-secret-file", right)
    fakes.wait()


def new_secret(file: Path) -> Path:
    """Make a join secret."""
    subprocess.run([binary(), "keys", "join-secret", "--out", file], check=True)
    return file


@pytest.mark.parametrize(("content", "says"), [("short", "characters"), (None, "cannot read")])
def test_an_unusable_join_secret_is_refused(
    tmp_path: Path, closing: ExitStack, content: str | None, says: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_text(content)
    flags = ("--appio-join-secret-file", file)
    launcher = closing.enter_context(SuperExec("127.0.0.1:9094", tmp_path, *flags))
    assert launcher.wait(10) == 1
    assert says in launcher.log and "--appio-join-secret-file" in launcher.log
    assert content is None or f" {content} " not in launcher.log

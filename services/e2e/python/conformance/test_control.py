"""Protocol section 9.7: Control, through the stubs and through the stock `flwr` command line."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import re
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from cliapp import Cli, started_run
from flwr.proto import control_pb2, run_pb2
from harness import Process, wait_for
from scenario import UNSET_ID, Code, Scene, denied, open_scene
from wire import (
    COMPLETED,
    FAILED,
    FINISHED,
    PENDING,
    RUNNING,
    STARTING,
    STOPPED,
    Control,
    expect_error,
    instruction,
    make_fab,
    sha256,
)

RUN_NOT_FOUND = "Run ID not found"

EVERY_STATUS = [PENDING, STARTING, RUNNING, FINISHED, STOPPED]


@pytest.fixture(scope="module")
def cli_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A server of its own for the command line, so that SuperExecs launch only its runs."""
    with open_scene(tmp_path_factory.mktemp("cli-scene"), args=()) as scene:
        yield scene


@pytest.fixture(scope="module")
def cli(cli_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """The command line in an app folder."""
    return Cli(tmp_path_factory.mktemp("cli"), cli_scene.link)


# -- starting runs ------------------------------------------------------------------------------


def test_128_flwr_run_prints_the_id(cli_scene: Scene, cli: Cli) -> None:
    """`flwr run` prints the run id, which ListRuns knows."""
    run_id = cli.run()
    assert list(cli_scene.control.list_runs(run_id).run_dict) == [run_id]
    cli_scene.control.stop_run(run_id)


def test_128_run_id_is_present(scene: Scene) -> None:
    """`run_id` is present in the response; equal FABs make different runs."""
    responses = [scene.control.start_run_response() for _ in range(2)]
    assert all(response.HasField("run_id") for response in responses)
    assert responses[0].run_id != responses[1].run_id


def bad_project(old: str, new: str) -> bytes:
    """Make a FAB whose project file has one thing replaced."""
    project = zipped_project(make_fab())
    assert old in project
    return make_fab(pyproject=project.replace(old, new))


def zipped_project(fab: bytes) -> str:
    """Return the project file of a FAB."""
    return zipfile.ZipFile(io.BytesIO(fab)).read("pyproject.toml").decode()


BAD_FABS = {
    "empty": lambda: b"",
    "garbage": lambda: b"no zip archive at all" * 50,
    "cut short": lambda: make_fab()[:-30],
    "too large": lambda: make_fab(files={"wire/big.py": b"#" * (10 * 1024 * 1024)}),
    "not TOML": lambda: make_fab(pyproject="[project\nname"),
    "not UTF-8": lambda: make_fab(pyproject=b"# \xff\xfe\n"),
    "empty project": lambda: make_fab(pyproject=""),
    "no name": lambda: bad_project('name = "wire"\n', ""),
    "no version": lambda: bad_project('version = "1.0.0"\n', ""),
    "no publisher": lambda: bad_project('publisher = "conformance"\n', ""),
    "no serverapp": lambda: bad_project('serverapp = "wire.server:app"\n', ""),
    "no clientapp": lambda: bad_project('clientapp = "wire.client:app"\n', ""),
    "no attribute": lambda: make_fab(serverapp="wire.server"),
    "empty attribute": lambda: make_fab(serverapp="wire.server:"),
    "empty module": lambda: make_fab(clientapp=":app"),
    "array in config": lambda: bad_project("fraction = 0.5", "fraction = [0.5]"),
    "date in config": lambda: bad_project("fraction = 0.5", "fraction = 2024-01-01"),
}


@pytest.mark.parametrize("case", BAD_FABS)
def test_129_bad_fabs(scene: Scene, case: str) -> None:
    """FAB larger than 10 MiB, garbage, missing keys, bad reference: OK without `run_id`."""
    fab = BAD_FABS[case]()
    assert not scene.control.start_run_response(fab).HasField("run_id")


def test_129_fab_without_project(scene: Scene) -> None:
    """An archive without pyproject.toml: OK without `run_id`."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("readme.md", "nothing")
    assert not scene.control.start_run_response(out.getvalue()).HasField("run_id")


GOOD_FABS = {
    "deflated": lambda: make_fab(
        files={"wire/x.py": b"x" * 9999}, compression=zipfile.ZIP_DEFLATED
    ),
    "without .info": lambda: make_fab(info=False),
    "without config": lambda: make_fab(
        pyproject=zipped_project(make_fab()).partition("[tool.flwr.app.config]")[0]
    ),
    "nested config": lambda: bad_project(
        "fraction = 0.5", 'b = true\ns = "x"\n[tool.flwr.app.config.deep.er]\nx = 1'
    ),
    "just below the limit": lambda: make_fab(files={"wire/b.py": b"#" * (10 * 1024**2 - 2000)}),
}


@pytest.mark.parametrize("case", GOOD_FABS)
def test_129_good_fabs(scene: Scene, case: str) -> None:
    """FABs of other shapes that upstream accepts are accepted and handed out unchanged."""
    fab = GOOD_FABS[case]()
    run_id = scene.control.start_run(fab)
    assert scene.appio.get_fab(sha256(fab)).fab.content == fab
    scene.control.stop_run(run_id)


def test_130_run_appears_as_pending(cli_scene: Scene, cli: Cli) -> None:
    """Run appears as pending with FAB id, version, hash and overrides."""
    run_id = cli.run("--run-config", "lines=7 wait=true")
    run = cli_scene.control.list_runs(run_id).run_dict[run_id]
    assert run.run_id == run_id
    assert run.fab_id == "conformance/chatter"
    assert run.fab_version == "1.2.3"
    assert run.status == run_pb2.RunStatus(status=PENDING)
    assert {k: v.WhichOneof("scalar") for k, v in run.override_config.items()} == {
        "lines": "sint64",
        "wait": "bool",
    }
    fab = cli_scene.appio.get_fab(run.fab_hash).fab.content
    assert hashlib.sha256(fab).hexdigest() == run.fab_hash
    cli_scene.control.stop_run(run_id)


# -- logs ---------------------------------------------------------------------------------------


def test_131_flwr_run_stream(cli_scene: Scene, cli: Cli) -> None:
    """`flwr run --stream` shows all output and terminates when the run finishes."""
    with cli.superexec():
        output = cli.output("run", cli.app, "link", "--stream", "--run-config", "lines=500")
    run_id = started_run(output)
    assert cli_scene.appio.status(run_id) == (FINISHED, COMPLETED, "")
    lines = [line for line in output.splitlines() if line.endswith("of the app")]
    assert lines == [f"line {number} of the app" for number in range(500)]
    assert output.count("the last line") == 1


def collect(control: Control, run_id: int) -> str:
    """Read a log stream to its end, which must be OK."""
    stream = control.stream_logs(run_id)
    text = "".join(part.log_output for part in stream)
    assert stream.code() == Code.OK
    return text


def test_131_last_line(scene: Scene) -> None:
    """The last line, pushed just before the run finishes, is never lost; 20 runs."""

    run_ids = [scene.run() for _ in range(20)]

    def one_run(number: int) -> None:
        run_id = run_ids[number]
        with ThreadPoolExecutor(1) as pool, Control(scene.link.control) as control:
            text = pool.submit(collect, control, run_id)
            scene.appio.push_logs(run_id, "first\n")
            time.sleep(number * 0.03)  # falls anywhere into a reader's period
            scene.appio.push_logs(run_id, "last\n")
            scene.appio.finish(run_id)
            assert text.result(10.0) == "first\nlast\n"

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(one_run, range(20)))


def test_132_stream_logs_of_an_unknown_run(scene: Scene) -> None:
    """StreamLogs of an unknown run: NOT_FOUND `Run ID not found`."""
    for run_id in (UNSET_ID, 0):
        stream = scene.control.stream_logs(run_id)
        expect_error(Code.NOT_FOUND, RUN_NOT_FOUND, list, stream)


def test_133_resumed_stream(scene: Scene) -> None:
    """StreamLogs resumes after `after_timestamp` without duplicates or gaps."""
    run_id, count = scene.run(), 400
    expected = [f"{number}\n" for number in range(count)]

    def write() -> None:
        for entry in expected:
            scene.appio.push_logs(run_id, entry)
            time.sleep(0.005)
        scene.appio.finish(run_id)

    writer = threading.Thread(target=write)
    writer.start()
    read, latest, connections = "", 0.0, 0
    deadline = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline, "the stream never ends"
        connections += 1
        stream = scene.control.stream_logs(run_id, latest, timeout=0.7)
        try:
            for part in stream:
                assert part.latest_timestamp > latest
                assert part.log_output
                read, latest = read + part.log_output, part.latest_timestamp
        except grpc.RpcError as error:
            assert error.code() == Code.DEADLINE_EXCEEDED
            continue
        break
    writer.join()
    assert read == "".join(expected)
    assert connections > 2, "no forced reconnect"
    assert list(scene.control.stream_logs(run_id, latest)) == []
    assert collect(scene.control, run_id) == read


def test_133_first_response_has_everything(scene: Scene) -> None:
    """The first response holds all there is, which is all that `flwr log --show` prints."""
    run_id = scene.run()
    for number in range(50):
        scene.appio.push_logs(run_id, f"{number}\n")
    stream = scene.control.stream_logs(run_id)
    first = next(iter(stream))
    assert first.log_output == "".join(f"{number}\n" for number in range(50))
    stream.cancel()
    assert abs(first.latest_timestamp - time.time()) < 5


def test_133_large_output(scene: Scene) -> None:
    """Entries far above gRPC's usual 4 MiB arrive whole."""
    run_id = scene.run()
    entries = [str(number) * 6_000_000 for number in range(3)]
    for entry in entries:
        scene.appio.push_logs(run_id, entry)
    scene.appio.finish(run_id)
    assert collect(scene.control, run_id) == "".join(entries)


def test_133_flwr_log(cli_scene: Scene, cli: Cli) -> None:
    """`flwr log --show` prints what there is, `--stream` goes on to the end of the run."""
    run_id = cli_scene.run()
    cli_scene.appio.push_logs(run_id, "so far\n")
    assert "so far" in cli.output("log", run_id, cli.app, "link", "--show")
    with cli.start("log", run_id, cli.app, "link", "--stream") as following:
        following.wait_log("so far")
        assert following.running
        cli_scene.appio.push_logs(run_id, "and more\n")
        cli_scene.appio.finish(run_id)
        assert following.wait() == 0
        assert following.log.count("so far\nand more\n") == 1
    unknown = cli.output("log", UNSET_ID, cli.app, "link", status=1)
    assert RUN_NOT_FOUND in unknown


@pytest.mark.parametrize("status", [PENDING, STARTING, RUNNING])
def test_134_stream_stays_open(scene: Scene, status: str) -> None:
    """StreamLogs does not end OK before the run is finished."""
    run_id = scene.run_in(status)
    scene.appio.push_logs(run_id, "x\n")
    stream = scene.control.stream_logs(run_id, timeout=1.2)
    seen = []

    def read() -> None:
        seen.extend(part.log_output for part in stream)

    expect_error(Code.DEADLINE_EXCEEDED, None, read)
    assert seen == ["x\n"]
    with ThreadPoolExecutor(1) as pool:
        text = pool.submit(collect, scene.control, run_id)
        scene.control.stop_run(run_id)
        assert text.result(5.0) == "x\n"


# -- listing ------------------------------------------------------------------------------------


def test_135_list_runs(fresh_scene: Scene) -> None:
    """ListRuns without id lists all runs; with id one; with unknown id NOT_FOUND."""
    scene = fresh_scene
    assert not scene.control.list_runs().run_dict
    runs = {status: scene.run_in(status) for status in EVERY_STATUS}
    every = scene.control.list_runs().run_dict
    assert set(every) == set(runs.values())
    for status, run_id in runs.items():
        one = scene.control.list_runs(run_id).run_dict
        assert dict(one) == {run_id: every[run_id]}
        assert one[run_id] == scene.appio.get_run(run_id).run
        assert one[run_id].status.status == (FINISHED if status == STOPPED else status)
    for unknown in (UNSET_ID, 0):
        expect_error(Code.NOT_FOUND, RUN_NOT_FOUND, scene.control.list_runs, unknown)


def parse_strictly(text: str) -> datetime.datetime:
    """Parse as Python 3.9 does: six fraction digits or none, an explicit zero offset."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?\+00:00", text), text
    return datetime.datetime.fromisoformat(text)


def test_136_timestamps(scene: Scene) -> None:
    """All timestamps parse with Python 3.9 and carry `+00:00`; unset ones are empty strings."""
    before = datetime.datetime.now(datetime.timezone.utc)
    set_in = {
        PENDING: 1,
        STARTING: 2,
        RUNNING: 3,
    }
    for status in EVERY_STATUS:
        run_id = scene.run_in(status)
        run = scene.control.list_runs(run_id).run_dict[run_id]
        instants = [run.pending_at, run.starting_at, run.running_at, run.finished_at]
        reached = set_in.get(status, 4)
        assert instants[reached:] == [""] * (4 - reached)
        parsed = [parse_strictly(text) for text in instants[:reached]]
        assert parsed == sorted(parsed)
        assert before <= parsed[0] <= parsed[-1] <= datetime.datetime.now(datetime.timezone.utc)
    stopped = scene.pending()
    scene.control.stop_run(stopped)
    run = scene.control.list_runs(stopped).run_dict[stopped]
    assert (run.starting_at, run.running_at) == ("", "")
    assert parse_strictly(run.finished_at) >= parse_strictly(run.pending_at)


def test_137_now(scene: Scene) -> None:
    """`now` is current UTC."""
    before = datetime.datetime.now(datetime.timezone.utc)
    now = parse_strictly(scene.control.list_runs(scene.pending()).now)
    assert before <= now <= datetime.datetime.now(datetime.timezone.utc)
    parse_strictly(scene.control.list_runs().now)


def test_142_flwr_ls_json(cli_scene: Scene, cli: Cli) -> None:
    """`flwr ls --format json` works against the server."""
    runs = {status: cli_scene.run_in(status) for status in EVERY_STATUS}
    listing = json.loads(cli.output("ls", cli.app, "link", "--format", "json"))
    assert listing["success"] is True
    found = {int(run["run-id"]): run for run in listing["runs"]}
    assert set(runs.values()) <= set(found)
    shown = {PENDING: "pending", FINISHED: "finished:completed", STOPPED: "finished:stopped"}
    for status, run_id in runs.items():
        assert found[run_id]["status"] == shown.get(status, status)
        assert found[run_id]["fab-id"] == "conformance/wire"
        assert re.fullmatch(r"(\d+d )?\d\d:\d\d:\d\d", found[run_id]["elapsed"])
    assert found[runs[PENDING]]["running-at"] == "N/A"
    assert re.fullmatch(r"[\d-]{10} [\d:]{8}Z", found[runs[FINISHED]]["finished-at"])
    one = json.loads(
        cli.output("ls", cli.app, "link", "--format", "json", "--run-id", runs[RUNNING])
    )
    assert [int(run["run-id"]) for run in one["runs"]] == [runs[RUNNING]]


# -- stopping -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [PENDING, STARTING, RUNNING])
def test_138_stop_run(scene: Scene, status: str) -> None:
    """StopRun: success on pending, starting, running; then and otherwise an error."""
    run_id = scene.run_in(status)
    assert scene.control.stop_run(run_id)
    assert scene.appio.status(run_id) == (FINISHED, STOPPED, "")
    details = f"Run ID {run_id} is already finished"
    expect_error(Code.FAILED_PRECONDITION, details, scene.control.stop_run, run_id)
    completed = scene.run_in(FINISHED)
    details = f"Run ID {completed} is already finished"
    expect_error(Code.FAILED_PRECONDITION, details, scene.control.stop_run, completed)
    assert scene.appio.status(completed) == (FINISHED, COMPLETED, "")
    for unknown in (UNSET_ID, 0):
        expect_error(Code.NOT_FOUND, RUN_NOT_FOUND, scene.control.stop_run, unknown)


def test_139_stop_run_removes_instructions(scene: Scene) -> None:
    """StopRun removes queued instructions and all objects; nodes do not receive them."""
    run_id, running, nodes = scene.run(), scene.run(), [scene.node() for _ in range(2)]
    sent, answer = scene.answered(run_id, nodes[0])
    queued = [scene.send(run_id, node) for node in nodes for _ in range(2)]
    lost = nodes[0].pull()
    assert lost is not None
    scene.control.stop_run(run_id)
    assert nodes[0].pull() is None
    assert nodes[1].pull() is None
    for packed in (*queued, answer):
        assert scene.presences(running, packed.objects) == {"absent"}
    for packed in (sent, *queued):
        assert scene.error_code(running, packed) == 3
    details = "Run is finished. Stopped by user."
    denied(details, scene.appio.push_messages, instruction(run_id, nodes[0].id))


def test_140_stopped_serverapp_ends(cli_scene: Scene, cli: Cli) -> None:
    """A running stock ServerApp ends with "stopped" within one poll after StopRun."""
    with cli.superexec() as superexec:
        run_id = cli.run("--run-config", "wait=true")
        wait_for_status(cli_scene, run_id, RUNNING)
        assert serverapps(superexec)
        assert "successfully stopped" in cli.output("stop", run_id, cli.app, "link").lower()
        wait_for(lambda: not serverapps(superexec), 10.0, "the ServerApp to end")
        assert cli_scene.appio.status(run_id) == (FINISHED, STOPPED, "")
        assert superexec.running
    again = cli.output("stop", run_id, cli.app, "link")
    assert "already finished" in again


@pytest.mark.hardening
@pytest.mark.slow
def test_102_stopped_serverapp_ends_after_a_heartbeat(cli_scene: Scene, cli: Cli) -> None:
    """A stock ServerApp whose run is stopped while it computes past a heartbeat still ends."""
    with cli.superexec() as superexec:
        run_id = cli.run("--run-config", "wait=true compute-seconds=24.0")
        wait_for_status(cli_scene, run_id, RUNNING)
        cli_scene.control.stop_run(run_id)
        wait_for(lambda: not serverapps(superexec), 40.0, "the ServerApp to end")
        assert cli_scene.appio.status(run_id) == (FINISHED, STOPPED, "")


def wait_for_status(scene: Scene, run_id: int, status: str) -> None:
    """Wait until a run that a SuperExec launches is in that status."""
    wait_for(lambda: scene.appio.status(run_id)[0] == status, 30.0, f"the run to be {status}")


def serverapps(superexec: Process) -> list[str]:
    """The command lines of a SuperExec's live ServerApp processes."""
    return [line for line in superexec.children().values() if "flwr-serverapp" in line]


def test_141_unimplemented_calls(scene: Scene) -> None:
    """PullArtifacts, GetLoginDetails, GetAuthTokens: UNIMPLEMENTED with exact details."""
    call = scene.control.call
    no_artifacts = "ControlServicer initialized without artifact provider"
    no_login = "ControlServicer initialized without user authentication"
    for run_id in (scene.run_in(FINISHED), UNSET_ID):
        request = control_pb2.PullArtifactsRequest(run_id=run_id)
        expect_error(Code.UNIMPLEMENTED, no_artifacts, call, "PullArtifacts", request)
    login = control_pb2.GetLoginDetailsRequest()
    expect_error(Code.UNIMPLEMENTED, no_login, call, "GetLoginDetails", login)
    tokens = control_pb2.GetAuthTokensRequest(device_code="x")
    expect_error(Code.UNIMPLEMENTED, no_login, call, "GetAuthTokens", tokens)


def test_141_headers_are_ignored(scene: Scene) -> None:
    """Without an authentication plug-in the CLI's token headers are ignored."""
    headers = [("flwr-oidc-access-token", "x"), ("flwr-oidc-refresh-token", "y")]
    run_id = scene.control.start_run(metadata=headers)
    run = scene.control.list_runs(run_id, metadata=headers).run_dict[run_id]
    assert run.flwr_aid == ""
    assert run.status.status == PENDING and run.status.sub_status != FAILED

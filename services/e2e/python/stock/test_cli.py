"""Every command of the ``flwr`` command line against the SuperLink."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from federation import App, Federation, Run, run_config, started_run_id
from harness import free_port, wait_for

NO_SUCH_RUN = 987654321
TIMESTAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ"


@pytest.fixture(scope="module")
def finished(probe: App) -> Run:
    """A run that is over."""
    return probe.start(nodes=2, say="as printed by the app").wait_completed()


def test_run_stream_prints_the_log_to_its_end(probe: App) -> None:
    output = probe.flwr("run", ".", "--stream", *run_config({"say": "grüße 🎊"}), timeout=90)
    assert output.status == 0
    lines = output.text.splitlines()
    assert "grüße 🎊" in lines
    assert '"event": "end"' in output.text
    assert Run(probe.link, started_run_id(output.text)).wait_finished(10) == "finished:completed"


def test_run_as_json(probe: App) -> None:
    answer = probe.flwr("run", ".", "--format", "json").json()
    assert answer["success"] is True and answer["fab-id"] == "flwr-quic/probe"
    assert Run(probe.link, answer["run-id"]).wait_finished() == "finished:completed"


def test_log_show_prints_what_there_is(probe: App, finished: Run) -> None:
    output = probe.flwr("log", finished.run_id, ".", "--show")
    assert output.status == 0
    assert "as printed by the app" in output.text and '"event": "end"' in output.text


def test_log_stream_of_a_finished_run_ends(probe: App, finished: Run) -> None:
    output = probe.flwr("log", finished.run_id, ".", "--stream", timeout=30)
    assert output.status == 0
    assert output.text.splitlines().count("as printed by the app") == 1
    assert output.text.count('"event": "end"') == 1


def test_log_stream_follows_a_running_run(probe: App) -> None:
    run = probe.start(nodes=2, rounds=2)
    output = probe.flwr("log", run.run_id, ".", "--stream", timeout=90)
    assert output.status == 0
    events = re.findall(r'PROBE \{"event": "([a-z-]+)"', output.text)
    assert events == [
        "start", "nodes",
        "round", "reply", "reply", "round-done",
        "round", "reply", "reply", "round-done",
        "rounds-done", "end",
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["--show", "--stream"])
def test_log_of_an_unknown_run(probe: App, mode: str) -> None:
    output = probe.flwr("log", NO_SUCH_RUN, ".", mode)
    assert output.status == 1 and "Run ID not found" in output.text


def test_ls_shows_a_table(probe: App, finished: Run) -> None:
    output = probe.flwr("ls", ".")
    assert output.status == 0
    (row,) = [line for line in output.text.splitlines() if str(finished.run_id) in line]
    assert "flwr-quic/probe (v1.2.3)" in row and "finished:completed" in row


def test_ls_as_json(probe: App, finished: Run) -> None:
    answer = probe.flwr("ls", ".", "--format", "json").json()
    assert answer["success"] is True
    created = [run["created-at"] for run in answer["runs"]]
    assert created == sorted(created)
    (row,) = [run for run in answer["runs"] if run["run-id"] == finished.run_id]
    assert row["fab-id"] == "flwr-quic/probe" and row["fab-name"] == "probe"
    assert row["fab-version"] == "1.2.3" and row["status"] == "finished:completed"
    assert re.fullmatch(r"[0-9a-f]{8}", row["fab-hash"])
    assert re.fullmatch(r"(\d+d )?\d\d:\d\d:\d\d", row["elapsed"])
    assert all(re.fullmatch(TIMESTAMP, row[key]) for key in ("created-at", "running-at", "finished-at"))


def test_ls_of_one_run(probe: App, finished: Run) -> None:
    answer = probe.flwr("ls", ".", "--run-id", finished.run_id, "--format", "json").json()
    assert [run["run-id"] for run in answer["runs"]] == [finished.run_id]


def test_ls_of_an_unknown_run(probe: App) -> None:
    assert "Run ID not found" in probe.flwr("ls", ".", "--run-id", NO_SUCH_RUN).text
    answer = probe.flwr("ls", ".", "--run-id", NO_SUCH_RUN, "--format", "json").json()
    assert answer["success"] is False and "Run ID not found" in answer["error-message"]


def test_stop_in_mid_run(shared: Federation, probe: App) -> None:
    run = probe.start(nodes=2, rounds=500)
    server = run.wait_event("start")["pid"]
    run.wait_event("round-done")
    output = probe.flwr("stop", run.run_id, ".")
    assert f"Run {run.run_id} successfully stopped" in output.text
    assert run.status == "finished:stopped" and run.details == ""
    wait_for(lambda: not _alive(server), 30, "the stopped run's ServerApp to end")
    assert "finished:stopped" in probe.flwr("ls", ".", "--run-id", run.run_id).text
    # The nodes drop what they hold of the stopped run and serve the next one.
    following = probe.start(nodes=2).wait_completed()
    assert [reply["code"] for reply in following.events("reply")] == [None, None]
    assert all(node.running for node in shared.nodes)


def test_stop_ends_the_log_stream(probe: App) -> None:
    run = probe.start(nodes=2, rounds=500)
    run.wait_event("round")
    with probe.flwr_background("log-stream", "log", run.run_id, ".", "--stream") as stream:
        stream.wait_log('"event": "round"')
        probe.flwr("stop", run.run_id, ".")
        assert stream.wait(20) == 0


def test_stop_of_a_finished_run(probe: App, finished: Run) -> None:
    output = probe.flwr("stop", finished.run_id, ".")
    assert f"Run ID {finished.run_id} is already finished" in output.text
    assert finished.status == "finished:completed"


def test_stop_of_an_unknown_run(probe: App) -> None:
    assert "Run ID not found" in probe.flwr("stop", NO_SUCH_RUN, ".").text
    answer = probe.flwr("stop", NO_SUCH_RUN, ".", "--format", "json").json()
    assert answer["success"] is False


def test_pull_says_that_the_superlink_does_not_support_it(probe: App, finished: Run) -> None:
    output = probe.flwr("pull", ".", "--run-id", finished.run_id)
    assert output.status == 1
    assert "The SuperLink does not support `flwr pull` command" in output.text


def test_login_says_that_user_authentication_is_not_enabled(shared: Federation) -> None:
    app = shared.app("probe")
    output = app.flwr("login", ".")
    assert output.status == 1 and "User authentication is not enabled" in output.text
    project = app.directory / "pyproject.toml"
    project.write_text(project.read_text() + "enable-user-auth = true\n")
    output = app.flwr("login", ".")
    assert output.status == 1
    assert "User authentication is not enabled on this SuperLink" in output.text


def test_the_app_address_of_another_service_is_recognised(shared: Federation) -> None:
    app = shared.app("probe")
    output = app.flwr("ls", ".", "--federation-config", f'address="{shared.link.fleet}"')
    assert "The SuperLink cannot process this request" in output.text


def test_an_unreachable_superlink_is_said_so(shared: Federation) -> None:
    address = f'address="127.0.0.1:{free_port()}"'
    output = shared.app("probe").flwr("ls", ".", "--federation-config", address)
    assert "Connection to the SuperLink is unavailable" in output.text


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

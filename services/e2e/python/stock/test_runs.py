"""What arrives where: overrides, node config, context, several runs, failing apps."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from federation import App, Federation, Run

OVERRIDES: dict[str, Any] = {
    "text": "with blanks and 'quotes'",
    "number": -7,
    "ratio": 2.5,
    "flag": True,
    "nested.deep.key": "changed",
}


@pytest.fixture(scope="module")
def pair(probe: App) -> list[Run]:
    """Two runs at once: one of three rounds with overrides, one of two rounds without."""
    first = probe.start(rounds=3, nodes=2, arrays=5, say="only in the first run", **OVERRIDES)
    second = probe.start(rounds=2, nodes=2)
    return [first.wait_completed(), second.wait_completed()]


def test_two_runs_at_once_both_complete(pair: list[Run]) -> None:
    assert pair[0].run_id != pair[1].run_id
    for run, rounds in zip(pair, [3, 2]):
        done = run.events("round-done")
        assert [(event["round"], event["replies"]) for event in done] == [
            (number, 2) for number in range(1, rounds + 1)
        ]
    # They really overlapped.
    first, second = pair[0].info(), pair[1].info()
    assert second.running_at < first.finished_at and first.running_at < second.finished_at


def test_the_logs_of_two_runs_are_kept_apart(pair: list[Run]) -> None:
    assert "only in the first run" in pair[0].log()
    assert "only in the first run" not in pair[1].log()


def test_a_run_after_others_works_as_the_first(pair: list[Run], probe: App) -> None:
    run = probe.start(nodes=2).wait_completed()
    assert run.run_id not in (pair[0].run_id, pair[1].run_id)
    assert [reply["code"] for reply in run.events("reply")] == [None, None]


def test_run_config_overrides_reach_the_serverapp(pair: list[Run]) -> None:
    config = pair[0].events("start")[0]["run_config"]
    assert {key: config[key] for key in OVERRIDES} == OVERRIDES
    assert config["untouched"] == "kept"
    assert pair[1].events("start")[0]["run_config"]["text"] == "default"


def test_run_config_overrides_reach_every_clientapp(pair: list[Run]) -> None:
    for reply in pair[0].events("reply"):
        config = reply["saw"]["run_config"]
        assert {key: config[key] for key in OVERRIDES} == OVERRIDES
        assert config["untouched"] == "kept"
    for reply in pair[1].events("reply"):
        assert reply["saw"]["run_config"]["number"] == 1


def test_value_types_survive(pair: list[Run]) -> None:
    server = pair[0].events("start")[0]["run_config"]
    client = pair[0].events("reply")[0]["saw"]["run_config"]
    for config in (server, client):
        kinds = [type(config[key]) for key in ("text", "number", "ratio", "flag")]
        assert kinds == [str, int, float, bool]


def test_each_node_has_its_own_node_config(pair: list[Run]) -> None:
    for number in (1, 2, 3):
        replies = [reply for reply in pair[0].events("reply") if reply["round"] == number]
        partitions = {reply["node"]: reply["saw"]["node_config"] for reply in replies}
        found = sorted(config["partition-id"] for config in partitions.values())
        assert found == [0, 1]
        assert all(config["num-partitions"] == 2 for config in partitions.values())


def test_context_is_kept_between_rounds_and_apart_between_runs(pair: list[Run]) -> None:
    for run in pair:
        calls: dict[int, list[int]] = {}
        for reply in run.events("reply"):
            calls.setdefault(reply["node"], []).append(reply["saw"]["calls"])
        assert len(calls) == 2
        rounds = len(run.events("round"))
        assert all(counts == list(range(1, rounds + 1)) for counts in calls.values())


def test_arrays_type_and_group_travel_unchanged(pair: list[Run]) -> None:
    sent = {event["round"]: event for event in pair[0].events("round")}
    assert len({event["checksum"] for event in sent.values()}) == 3
    for reply in pair[0].events("reply"):
        saw, expected = reply["saw"], sent[reply["round"]]
        assert reply["checksum"] == saw["checksum"] == expected["checksum"]
        assert (saw["type"], saw["group"]) == (expected["type"], str(reply["round"]))


def test_the_run_record_describes_the_app(pair: list[Run]) -> None:
    info = pair[0].info()
    assert (info.fab_id, info.fab_version) == ("flwr-quic/probe", "1.2.3")
    assert len(info.fab_hash) == 2 * hashlib.sha256().digest_size
    assert info.override_config["text"].string == OVERRIDES["text"]
    stamps = [info.pending_at, info.starting_at, info.running_at, info.finished_at]
    assert all(stamp.endswith("+00:00") for stamp in stamps) and stamps == sorted(stamps)


def test_an_unknown_override_fails_the_run_with_the_reason(probe: App) -> None:
    run = probe.start(**{"no-such-key": 1})
    assert run.wait_finished() == "finished:failed"
    assert "no-such-key" in run.details


def test_a_clientapp_that_raises_is_an_error_reply(probe: App) -> None:
    run = probe.start(nodes=2, rounds=2, client="raise", client_partition=0).wait_completed()
    for number in (1, 2):
        replies = [reply for reply in run.events("reply") if reply["round"] == number]
        codes = [reply["code"] for reply in replies]
        assert sorted(codes, key=str) == [2, None]
        (failed,) = [reply for reply in replies if reply["code"] == 2]
        assert "ValueError" in failed["reason"] and "told to raise" in failed["reason"]


def test_a_serverapp_that_crashes_fails_the_run_with_details(probe: App) -> None:
    run = probe.start(nodes=2, server="raise")
    assert run.wait_finished() == "finished:failed"
    assert "the probe was told to crash" in run.details
    log = run.log()
    assert "RuntimeError: the probe was told to crash" in log and "Traceback" in log


def test_the_federation_is_intact_after_failed_runs(shared: Federation, probe: App) -> None:
    run = probe.start(nodes=2).wait_completed()
    assert [reply["code"] for reply in run.events("reply")] == [None, None]
    assert all(node.running for node in shared.nodes)

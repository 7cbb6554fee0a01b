"""`--memory-budget`, `--storage-free`: what passes through a SuperLink is not held by its memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenario import Code, open_scene, together
from wire import arrays, expect_error, instruction, reply
from world import resident_bytes

import harness

MIB = 1 << 20

pytestmark = pytest.mark.skipif(harness.REFERENCE, reason="Flower has no such flag")


def peak_bytes(pid: int) -> int:
    """Most memory that a process has ever had resident, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no peak")


@pytest.mark.parametrize("database", [False, True], ids=["memory", "database"])
def test_a_model_may_be_larger_than_the_memory(tmp_path: Path, database: bool) -> None:
    """20 arrays of 16 MiB, pushed eight at once in both directions, within a budget of 64 MiB."""
    args = ["--hold-seconds", "0", "--memory-budget", "64M"]
    if database:
        args += ["--database", str(tmp_path / "state.db")]
    with open_scene(tmp_path, args) as scene:
        pid = scene.link.process.pid
        before = resident_bytes(pid)
        run_id, node = scene.run(), scene.node()
        sent = instruction(run_id, node.id, arrays(16 * MIB, count=20))
        scene.appio.push_messages(sent)
        parts = list(sent.objects.items())
        for first in range(0, len(parts), 8):
            pushes = [
                lambda part=part: scene.appio.push_object(run_id, *part)
                for part in parts[first : first + 8]
            ]
            assert all(pushed.stored for pushed in together(*pushes))
        got = node.pull()
        assert got is not None and got.id == sent.id
        assert node.receive(got) == sent.objects
        answer = reply(sent, sent.message.content)
        assert answer.id in node.push(answer).results
        result = scene.result(run_id, sent)
        assert result is not None
        assert scene.appio.receive(run_id, result) == answer.objects
        grown = peak_bytes(pid) - before
        # Files are written while objects arrive.
        bound = 40 if database else 96
        assert grown < bound * MIB, f"{grown // MIB} MiB for a model of 320"
        folder = tmp_path / "superlink-home"
        left = lambda: [path for path in folder.rglob("objects/*/*") if path.is_file()]  # noqa: E731
        harness.wait_for(lambda: not left(), 20.0, "nothing to stay on the disk")


def test_at_the_floor_large_uploads_are_refused_and_all_else_goes_on(tmp_path: Path) -> None:
    """With a database, whose large objects are files."""
    database = str(tmp_path / "state.db")
    args = ["--hold-seconds", "0", "--database", database, "--storage-free", "1000T"]
    with open_scene(tmp_path, args) as scene:
        run_id, node = scene.run(), scene.node()
        large = instruction(run_id, node.id, arrays(MIB))
        scene.appio.push_messages(large)
        chunk = max(large.objects, key=lambda object_id: len(large.objects[object_id]))
        expect_error(
            Code.RESOURCE_EXHAUSTED,
            "the SuperLink's storage is full",
            scene.appio.push_object,
            run_id,
            chunk,
            large.objects[chunk],
        )
        assert "free some of the disk" in scene.link.log
        sent, answer = scene.answered(run_id, node)
        result = scene.result(run_id, sent)
        assert result is not None and result.id == answer.id


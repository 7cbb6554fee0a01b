"""What the measurements rest on: `python -m unittest discover bench/tests`, in the environment of bench/run.sh."""

import json
import os
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flwr.common import RecordDict  # noqa: E402
from flwr.common.inflatable_utils import inflate_object_from_contents, validate_object_content  # noqa: E402
from flwr.proto import message_pb2, node_pb2  # noqa: E402

from fedbench import machine, report  # noqa: E402
from fedbench.objects import Content, Payload, push_request, walk  # noqa: E402
from fedbench.transfer import peak_alive_bytes  # noqa: E402


class Objects(unittest.TestCase):
    def setUp(self):
        self.content = Content.build(Payload(1, "app", 1000), 7)

    def test_flower_reads_the_content(self):
        contents = {name: b"".join(parts) for name, parts in self.content.parts.items()}
        for one in contents.values():
            validate_object_content(one)
        record = inflate_object_from_contents(self.content.tree.object_id, contents)
        self.assertIsInstance(record, RecordDict)
        sizes = {name: len(array.data) for name, array in record["arrays"].items()}
        self.assertEqual(sizes, {"layer0": 5000, "layer1": 2000})

    def test_chunks_differ_by_owner_and_are_the_same_for_a_seed(self):
        again, other = (set(Content.build(Payload(1, owner, 1000), 7).parts) for owner in ("app", "node0"))
        self.assertEqual(set(self.content.parts), again)
        self.assertFalse(again & other)

    def test_every_object_is_walked_once_children_first(self):
        message, tree = self.content.message(42, 1, 7)
        order = walk(tree)
        self.assertEqual(order[-1], message.metadata.message_id)
        self.assertEqual(sorted(order), sorted(self.content.parts))

    def test_the_push_request_is_what_protobuf_would_write(self):
        for size in (1, 127, 128, 70_000):
            parts = [b"x" * (size // 2), b"y" * (size - size // 2)]
            raw = push_request(node_pb2.Node(node_id=9), 8, "ab", parts)
            whole = message_pb2.PushObjectRequest(node=node_pb2.Node(node_id=9), run_id=8, object_id="ab")
            whole.object_content = b"".join(parts)
            self.assertEqual(raw, whole.SerializeToString())


class Alive(unittest.TestCase):
    def test_a_shared_object_counts_once_and_until_its_last_message(self):
        events = [
            ["message", 0, "m1", ["a", "b"]],
            ["message", 0, "m2", ["a"]],
            ["stored", 1, "a", 100],
            ["stored", 2, "b", 10],
            ["confirm", 3, "m1", 0],
            ["stored", 4, "c", 5],
            ["message", 4, "m3", ["c"]],
            ["confirm", 5, "m2", 0],
            ["stored", 6, "d", 50],
            ["message", 6, "m4", ["d"]],
        ]
        self.assertEqual(peak_alive_bytes(events), 110)
        self.assertEqual(peak_alive_bytes(events[:3] + events[5:]), 155, "m1 is never confirmed")


class Machine(unittest.TestCase):
    def test_cpu_time_is_that_of_proc_stat(self):
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        ticks = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        self.assertAlmostEqual(machine.cpu_seconds(os.getpid()), ticks, delta=0.03)


class Report(unittest.TestCase):
    def test_targets(self):
        def summary(figure, stock, ours):
            return report.summarize({figure: {"stock": [{"value": stock}], "ours": [{"value": ours}]}})[figure]

        self.assertTrue(summary("pull", 1.5, 0.3)["met"])
        self.assertFalse(summary("pull", 1.5, 0.31)["met"])
        self.assertTrue(summary("memory", 0.1, 1.5)["met"], "memory is held against itself")
        self.assertFalse(summary("memory", 2.0, 1.6)["met"])
        json.dumps(summary("round", 6.0, 2.0))


if __name__ == "__main__":
    unittest.main()

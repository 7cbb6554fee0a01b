"""What an interruption leaves, and how it goes on: `python -m unittest discover bench/tests`."""

import json
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fedbench.journal import SAME, Journal, Mismatch  # noqa: E402

FACTS = {**dict.fromkeys(SAME, "same"), "load_average_at_start": 1.0}


class Resume(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name, "wan.json")

    def journal(self, command="wan", resume=True, **facts):
        return Journal(self.path, command, {**FACTS, "load_average_at_start": 2.0, **facts}, resume)

    def test_what_was_measured_is_not_measured_again(self):
        first = self.journal()
        self.assertEqual(first.sample("matrix", ["lan", 1], lambda: {"x": 1}), ({"key": ["lan", 1], "x": 1}, True))
        with self.assertRaises(ZeroDivisionError):
            first.sample("matrix", ["lan", 2], lambda: 1 / 0)

        again = self.journal()
        self.assertEqual(again.sample("matrix", ["lan", 1], lambda: 1 / 0)[1], False)
        self.assertEqual(again.sample("ttfb", ["lan", 1], lambda: {"x": 2})[1], True)
        self.assertEqual(again.sample("matrix", ["lan", 2], lambda: {"x": 3})[1], True)
        written = json.loads(self.path.read_text())["samples"]
        self.assertEqual([[one["x"] for one in many] for many in written.values()], [[1, 3], [2]])
        self.assertEqual(again.results, written)
        self.assertEqual(list(self.path.parent.iterdir()), [self.path])

    def test_the_time_adds_up_and_the_load_is_that_of_the_start(self):
        self.journal().sample("matrix", [1], lambda: {})
        whole = json.loads(self.path.read_text())
        self.path.write_text(json.dumps({**whole, "seconds": 1000}))
        again = self.journal(load_average_at_start=9.0)
        self.assertGreaterEqual(again.head()["seconds"], 1000)
        self.assertEqual(again.facts["load_average_at_start"], 2.0)

    def test_samples_of_something_else_are_refused(self):
        self.journal().sample("matrix", [1], lambda: {})
        for journal in (lambda: self.journal("wan --quick"), lambda: self.journal(commit="another")):
            with self.assertRaises(Mismatch):
                journal()
        self.assertEqual(self.journal("wan --quick", resume=False).results, {})

    def test_without_a_file_there_is_nothing_to_go_on_with(self):
        self.assertEqual(self.journal().results, {})
        nowhere = Journal(None, "wan", dict(FACTS))
        self.assertEqual(nowhere.sample("matrix", [1], lambda: {"x": 1})[0]["x"], 1)
        self.assertFalse(self.path.exists())


if __name__ == "__main__":
    unittest.main()

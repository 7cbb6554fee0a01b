"""How `Link` treats its emulator: `python -m unittest discover bench/tests`. FLWR_EMU_BIN adds a real one."""

import os
import stat
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fedbench.wan import Link, Unable  # noqa: E402

FAKE = """#!{python}
import json, signal, sys
mode = sys.argv[sys.argv.index("--profile") + 1]
if mode == "unable":
    sys.exit(77)
if mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(json.dumps({{"ready": True, "addresses": ["10.0.0.1", "10.0.0.2"]}}), flush=True)
for line in sys.stdin:
    print(json.dumps({{"final": False, "request": json.loads(line)}}), flush=True)
while mode == "deaf":
    signal.pause()
print(json.dumps({{"final": True}}), flush=True)
"""


class WithFake(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.binary = Path(folder.name, "flwr-emu")
        self.binary.write_text(FAKE.format(python=sys.executable))
        self.binary.chmod(stat.S_IRWXU)

    def test_a_link_is_ready_answers_and_ends(self):
        with Link("lan", 3, self.binary) as link:
            self.assertEqual(link.addresses, ("10.0.0.1", "10.0.0.2"))
            self.assertEqual(link.command(1, ["ping", 5]), ["ip", "netns", "exec", link.namespaces[1], "ping", "5"])
            link.send({"down": True})
            self.assertEqual(link.stats()["request"], {"down": True})
            self.assertEqual(link.close(), {"final": True})
        self.assertEqual(link.close(), {"final": True})

    def test_an_exception_ends_even_a_deaf_emulator(self):
        link = Link("deaf", 3, self.binary)
        link.GRACE_S = 0.2
        with self.assertRaises(ZeroDivisionError), link:
            1 / 0
        self.assertLess(link._child.returncode, 0)
        self.assertIsNone(link.close())

    def test_status_77_means_unable(self):
        with self.assertRaises(Unable), Link("unable", 3, self.binary):
            pass


@unittest.skipUnless(os.environ.get("FLWR_EMU_BIN"), "FLWR_EMU_BIN is not set")
class WithEmulator(unittest.TestCase):
    def test_an_exception_leaves_no_namespace(self):
        link = Link("lan", 3, os.environ["FLWR_EMU_BIN"])
        try:
            with self.assertRaises(ZeroDivisionError), link:
                self.assertTrue(Path("/run/netns", link.namespaces[0]).exists())
                1 / 0
        except Unable as error:
            self.skipTest(str(error))
        self.assertEqual(link.close()["tx_dropped"], [0, 0])
        self.assertFalse(any(Path("/run/netns", name).exists() for name in link.namespaces))


if __name__ == "__main__":
    unittest.main()

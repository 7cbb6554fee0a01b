"""Both ends of a transfer with stock Flower, over the loopback: `python -m unittest discover bench/tests`."""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fedbench import linkrun  # noqa: E402
from fedbench.objects import CHUNK_BYTES  # noqa: E402
from fedbench.processes import Children  # noqa: E402
from fedbench.tls import make_certificates  # noqa: E402


class BothEnds(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.certs = Path(folder.name)
        make_certificates(self.certs)
        # As `flwr-link certs` names it.
        (self.certs / "server.crt").rename(self.certs / "server.pem")

    def transfer(self, direction, objects, *more):
        """What both ends say about `objects` chunks."""
        end = [sys.executable, linkrun.FLOWER_END]
        flags = ["--certs", self.certs, "--direction", direction, "--objects", objects, "--object-bytes", CHUNK_BYTES]
        pipe = subprocess.PIPE
        with Children() as children:
            argv = [*end, "serve", "--listen", "127.0.0.1:0", *flags]
            server = children.spawn(argv, stdin=pipe, stdout=pipe, text=True)
            address = json.loads(server.stdout.readline())["address"]
            argv = [*end, "run", "--server", address, *flags, *more]
            done = subprocess.run([str(one) for one in argv], stdout=pipe, text=True, check=True)
            server.stdin.close()
            return json.loads(done.stdout), json.loads(server.stdout.readline())

    def test_every_chunk_is_moved_in_both_directions(self):
        for direction in ("up", "down"):
            client, server = self.transfer(direction, 3)
            # Heads, and the small objects around the chunks.
            self.assertAlmostEqual(client["bytes"], 3 * CHUNK_BYTES, delta=10_000)
            self.assertFalse(client["capped"])
            self.assertGreater(client["ttfb_ms"], 0)
            for one in (client, server):
                self.assertGreater(one["usage"]["rss_peak_bytes"], 3 * CHUNK_BYTES)
                self.assertGreater(one["usage"]["cpu_user_seconds"], 0)
                self.assertTrue(one["kernel"]["tcp_congestion"])

    def test_a_transfer_is_given_up_when_its_time_is_over(self):
        client, _ = self.transfer("up", 20, "--seconds-max", "0.2")
        self.assertTrue(client["capped"])
        self.assertLess(client["bytes"], 20 * CHUNK_BYTES)
        self.assertLess(client["seconds"], 20)


if __name__ == "__main__":
    unittest.main()

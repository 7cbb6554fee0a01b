"""How uploads side by side and changes of address are judged: `python -m unittest discover bench/tests`."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fedbench import fairness, flows, linkrun, migration  # noqa: E402
from fedbench.linkrun import Transport  # noqa: E402

MBIT_BUCKET = 12_500
"""Bytes in a tenth of a second of a flow of 1 Mbit/s."""


def arrivals(mbit, begin_s=100.0, silent_s=0.0, seconds=40, **more):
    """A steady flow that begins after a while."""
    silent, flowing = round(silent_s * 10), round((seconds - silent_s) * 10)
    counts = [0] * silent + [int(mbit * MBIT_BUCKET)] * flowing
    return {"begin_s": begin_s, "bucket_s": 0.1, "bytes": counts, "last_s": begin_s + seconds, "gaps": [], **more}


class Arrivals(unittest.TestCase):
    def test_the_first_arrival_is_on_the_clock_of_the_machine(self):
        self.assertAlmostEqual(flows.first_arrival(arrivals(1, 100, 2.5)), 102.5)
        self.assertIsNone(flows.first_arrival({**arrivals(1), "bytes": [0, 0]}))

    def test_a_bucket_on_the_edge_counts_in_part(self):
        self.assertAlmostEqual(flows.bytes_between(arrivals(8), 101.05, 102.05), 1_000_000, 3)
        self.assertAlmostEqual(flows.bytes_between(arrivals(8), 90, 100), 0)


class Fairness(unittest.TestCase):
    def sample(self, first, second):
        both = {"quic": first, "tls-bbr": second}
        ends = [{"transport": name, "server": {"arrivals": one}} for name, one in both.items()]
        return {"flows": ends, "asked": {"rate_mbit": 50, "rtt_ms": 20}, "seed": 1}

    def test_shares_are_of_half_the_link_in_the_common_time(self):
        # The second flow begins 1 s later, by a clock that began elsewhere.
        judged = fairness.judge(self.sample(arrivals(40), arrivals(5, 101)), "quic+tls-bbr", 0)
        self.assertAlmostEqual(judged["flows"][0]["share"], 1.6)
        self.assertAlmostEqual(judged["flows"][1]["share"], 0.2)
        self.assertAlmostEqual(judged["link_share"], 0.9)
        rows = {row["row"]: row["met"] for row in fairness.targets([judged])}
        self.assertEqual(
            rows,
            {"20 ms: least share of quic beside tls-bbr": True, "20 ms: least share of tls-bbr beside quic": False},
        )
        self.assertIn("1.60 [1.60-1.60]", fairness.table([judged]))

    def test_a_start_does_not_count(self):
        begun = arrivals(40)
        begun["bytes"][: fairness.STARTUP_S * 10] = [0] * (fairness.STARTUP_S * 10)
        begun["bytes"][0] = 1
        judged = fairness.judge(self.sample(begun, arrivals(10)), "quic+tls-bbr", 0)
        self.assertAlmostEqual(judged["flows"][0]["share"], 1.6)

    def test_the_worst_run_of_two_like_flows_is_held_against_the_goal(self):
        def judged(first, second):
            return fairness.judge(self.sample(arrivals(first), arrivals(second)), "quic+quic", 0)

        rows = fairness.targets([judged(20, 20), judged(40, 5)])
        self.assertEqual([(row["met"], round(row["measured"], 3)) for row in rows], [(False, 0.2)])
        yardstick = fairness.judge(self.sample(arrivals(40), arrivals(1)), "tls-cubic+tls-bbr", 0)
        self.assertEqual(fairness.targets([yardstick]), [])

    def test_a_flow_of_which_nothing_came_is_a_failure(self):
        with self.assertRaises(linkrun.Failed):
            fairness.judge(self.sample(arrivals(40), {**arrivals(0), "bytes": []}), "quic+tls-bbr", 0)

    def test_pairs_are_two_that_choose_their_own_congestion_control(self):
        self.assertEqual([one.label for one in fairness.pair("quic+tls-cubic")], ["quic", "tls-cubic"])
        self.assertEqual(flows.socket_flags(Transport.parse("tls-cubic")), ["--tcp-congestion", "cubic"])
        for text in ("quic", "quic+quic+quic", "quic+grpc-bbr", "quic+flower-bbr", "quic+"):
            with self.assertRaises(ValueError, msg=text):
                fairness.pair(text)


class Migration(unittest.TestCase):
    def judge(self, gaps, last_s=140.0):
        heard = arrivals(80, last_s=last_s, gaps=[{"at_s": at, "seconds": seconds} for at, seconds in gaps])
        flow = {"transport": "quic", "server": {"arrivals": heard}}
        change = {"begin_s": 103.0, "end_s": 104.0}
        sample = {"flows": [flow], "asked": {"rtt_ms": 50}, "meanwhile": change, "ended_s": 140.0}
        return migration.judge(sample, "up", 1)

    def test_only_silences_around_the_change_or_after_it_count(self):
        judged = self.judge([(100.5, 2.0), (102.9, 1.3), (110.0, 0.1)])
        self.assertAlmostEqual(judged["gap_ms"], 1300)
        self.assertAlmostEqual(judged["gap_rtts"], 6)
        self.assertAlmostEqual(judged["after_mbit"], 80)
        self.assertTrue(all(row["met"] for row in migration.targets([judged])))
        self.assertIn("6.0 [6.0-6.0]", migration.table([judged]))

    def test_of_a_download_the_client_knows_when_its_bytes_came(self):
        heard = arrivals(80, gaps=[{"at_s": 102.9, "seconds": 1.3}])
        flow = {"transport": "quic", "client": {"arrivals": heard}, "server": {"arrivals": None}}
        change = {"begin_s": 103.0, "end_s": 104.0}
        sample = {"flows": [flow], "asked": {"rtt_ms": 50}, "meanwhile": change, "ended_s": 140.0}
        judged = migration.judge(sample, "down", 1)
        self.assertAlmostEqual(judged["gap_rtts"], 6)
        self.assertEqual(migration.targets([judged])[0]["row"][:10], "quic down:")

    def test_a_later_silence_counts_too(self):
        self.assertAlmostEqual(self.judge([(102.9, 1.2), (104.5, 1.5)])["gap_rtts"], 10)

    def test_a_connection_that_never_comes_back_is_silent_to_the_end(self):
        judged = self.judge([(101.0, 0.02)], last_s=103.1)
        self.assertAlmostEqual(judged["gap_ms"], 36_900)
        self.assertFalse(any(row["met"] for row in migration.targets([judged])))

    def test_a_server_that_heard_nothing_is_a_failure(self):
        with self.assertRaises(linkrun.Failed):
            self.judge([])


if __name__ == "__main__":
    unittest.main()

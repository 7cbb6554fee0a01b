"""How transfers over the emulated link are judged: `python -m unittest discover bench/tests`."""

import argparse
import contextlib
import io
import json
import os
import stat
import sys
import tempfile
import unittest
import unittest.mock
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import wan  # noqa: E402
from fedbench import experiments, linkreport, linkrun  # noqa: E402
from fedbench.linkrun import Transport  # noqa: E402


def statistics(late_us=(100, 100), tx_dropped=(0, 0), packet_bytes=1500, write_errors=0):
    def direction(late):
        return {
            "bytes_in": 11_000_000,
            "bytes_out": 10_500_000,
            "lateness_us": {"p99": late},
            "packet_bytes_max": packet_bytes,
            "write_errors": write_errors,
        }

    forward, backward = map(direction, late_us)
    return {"directions": {"forward": forward, "backward": backward}, "tx_dropped": list(tx_dropped)}


def end(**more):
    usage = {"cpu_user_seconds": 0.2, "cpu_system_seconds": 0.1, "rss_peak_bytes": 20_000_000}
    return {"usage": usage, **more}


def sample(transport="quic", share=0.9, profile="wan-50-0.5", loss=0.5, **more):
    """As `judge` makes it."""
    return {
        "profile": profile,
        "direction": "up",
        "transport": transport,
        "asked": {"loss_percent": loss, "rate_mbit": 100, "rtt_ms": 50},
        "faults": [],
        "capped": False,
        "goodput_share": share,
        "sent_ratio": 1.05,
        "client_cpu_s_per_gb": 9,
        "server_cpu_s_per_gb": 9,
        "client_rss_mb": 20,
        "server_rss_mb": 20,
        **more,
    }


class Transports(unittest.TestCase):
    def test_labels_say_program_and_congestion_control(self):
        quic, chosen, grpc = map(Transport.parse, ("quic", "quic-cubic", "grpc-bbr"))
        self.assertEqual(quic.end_flags(), ["--transport", "quic"])
        self.assertEqual(chosen.end_flags(), ["--transport", "quic", "--congestion", "cubic"])
        self.assertEqual(chosen.link_flags(), [])
        self.assertEqual(grpc.end_flags(), ["--transport", "grpc"])
        self.assertEqual(grpc.link_flags(), ["--tcp-congestion", "bbr"])
        small, flower = map(Transport.parse, ("grpc-default-bbr", "flower-cubic"))
        self.assertEqual(small.end_flags(), ["--transport", "grpc", "--default-windows"])
        self.assertEqual(small.link_flags(), ["--tcp-congestion", "bbr"])
        self.assertEqual(flower.link_flags(), ["--tcp-congestion", "cubic"])

    def test_stock_flower_is_another_program_with_the_same_flags(self):
        programs = linkrun.Programs("emu", "link", "certs", priority=False, flower_python="python")
        ours = programs.end(Transport.parse("quic"), "serve", "--listen", "a")
        self.assertEqual(ours, ["link", "serve", "--certs", "certs", "--transport", "quic", "--listen", "a"])
        stock = programs.end(Transport.parse("flower-bbr"), "serve", "--listen", "a")
        self.assertEqual(stock, ["python", linkrun.FLOWER_END, "serve", "--certs", "certs", "--listen", "a"])
        self.assertTrue(linkrun.FLOWER_END.exists())
        for label in ("grpc", "tls", "http-bbr", "flower", "grpc-default-", ""):
            with self.assertRaises(ValueError):
                Transport.parse(label)


class Faults(unittest.TestCase):
    def test_a_quiet_host_has_none(self):
        self.assertEqual(linkrun.faults(statistics(), 20), [])

    def test_lateness_is_held_against_the_delay_and_never_against_less_than_a_bound(self):
        self.assertEqual(linkrun.faults(statistics((299, 0)), 0.2), [])
        self.assertTrue(linkrun.faults(statistics((0, 501)), 20))
        self.assertEqual(linkrun.faults(statistics((0, 501)), 200), [])

    def test_losses_that_nobody_asked_for(self):
        for one in ({"tx_dropped": (0, 1)}, {"packet_bytes": 1501}, {"write_errors": 1}):
            self.assertEqual(len(linkrun.faults(statistics(**one), 20)), 1, one)


class Judging(unittest.TestCase):
    def judge(self, client):
        asked = {"rate_mbit": 100, "rtt_ms": 50, "loss_percent": 0.5}
        link = statistics()
        return linkrun.judge({"client": end(**client), "server": end(), "link": link, "asked": asked}, "up")

    def test_shares_of_the_rate_and_of_the_useful_bytes(self):
        judged = self.judge({"transport": "quic", "bytes": 10_000_000, "seconds": 1.0, "capped": False})
        self.assertAlmostEqual(judged["goodput_share"], 0.8)
        self.assertAlmostEqual(judged["sent_ratio"], 1.1)
        self.assertAlmostEqual(judged["client_cpu_s_per_gb"], 30)
        self.assertAlmostEqual(judged["server_rss_mb"], 20)

    def test_what_was_cut_off_has_moved_what_the_link_has_carried(self):
        judged = self.judge({"transport": "grpc", "bytes": 0, "seconds": 25.0, "capped": True})
        self.assertAlmostEqual(judged["goodput_mbit"], 10.5 * 0.963 * 8 / 25)
        self.assertGreater(judged["sent_ratio"], 1)


class Report(unittest.TestCase):
    def test_cells_have_medians_and_marks(self):
        many = [sample(share=share) for share in (0.7, 0.9, 0.8)]
        many.append(sample("grpc-cubic", 0.05, capped=True, faults=["late by 900 us"]))
        quic, cubic = linkreport.summarize(many)
        self.assertEqual(quic["goodput_share"], {"median": 0.8, "min": 0.7, "max": 0.9})
        self.assertEqual((quic["runs"], cubic["capped"], cubic["faulty"]), (3, 1, 1))
        table = linkreport.cells_table([quic, cubic])
        self.assertIn("0.800 [0.700-0.900]", table)
        self.assertIn("0.050 [0.050-0.050] CAP !", table)
        self.assertEqual(len({len(line) for line in table.splitlines()}), 1)

    def test_every_goal_of_a_lossy_link(self):
        samples = [sample(share=0.86), sample("grpc-bbr", 0.9), sample("grpc-cubic", 0.05), sample("tls-bbr", 0.95)]
        rows = {row["row"]: row for row in linkreport.targets(linkreport.summarize(samples), 2)}
        met = {name.partition(": ")[2]: row["met"] for name, row in rows.items()}
        self.assertEqual(met.pop("quic / link"), False)
        self.assertEqual(met, {"quic / grpc-bbr": True, "quic / grpc-cubic": True, "quic sent / useful": True})
        self.assertIn("NO", linkreport.targets_table(list(rows.values())))

    def test_goals_that_do_not_apply(self):
        samples = [sample(profile="wan-20", loss=0), sample("grpc-cubic", 0.9, "wan-20", 0)]
        rows = [row["row"] for row in linkreport.targets(linkreport.summarize(samples), 2)]
        self.assertFalse(any("grpc-cubic" in row for row in rows), "there is no loss")
        lan = linkreport.summarize([sample(profile="lan", loss=0)])
        goals = [[row["met"] for row in linkreport.targets(lan, cpus)] for cpus in (2, 4)]
        self.assertEqual(goals, [[None, True], [True, True]])
        self.assertEqual(linkreport.targets_table([]), "")

    def test_the_cost_on_a_lan_is_published_and_no_goal(self):
        both = [sample(profile="lan", loss=0), sample("grpc-bbr", profile="lan", loss=0, client_cpu_s_per_gb=0)]
        rows = {row["row"]: row for row in linkreport.targets(linkreport.summarize(both), 2)}
        cost = rows["lan up: CPU of quic / grpc-bbr"]
        self.assertEqual((cost["measured"], cost["met"]), (2.0, None))
        self.assertNotIn("lan up: quic / grpc-bbr", rows)
        self.assertIn("| -", linkreport.targets_table([cost]))

    def test_stock_flower_and_the_windows_of_http2_are_held_against(self):
        def rows(profile, rtt_ms):
            asked = {"loss_percent": 1, "rate_mbit": 100, "rtt_ms": rtt_ms}
            names = (("quic", 0.8), ("grpc-default-bbr", 0.4), ("flower-cubic", 0.1), ("flower-bbr", 0.8))
            samples = [sample(name, share, profile, asked=asked) for name, share in names]
            found = linkreport.targets(linkreport.summarize(samples), 2)
            return {row["row"].partition("quic / ")[2]: row["met"] for row in found if "quic / " in row["row"]}

        self.assertEqual(rows("wan-100-1", 100), {"link": False, "flower-cubic": True, "grpc-default-bbr": False})
        self.assertNotIn("grpc-default-bbr", rows("wan-50-0.5", 50))

    def test_what_is_no_goal_is_not_missed(self):
        with tempfile.TemporaryDirectory() as folder:
            options = argparse.Namespace(check=True, json=Path(folder, "a.json"), markdown=Path(folder, "a.md"))
            facts = {"cpus": 2, "cpu": "x", "memory_gb": 1, "kernel": "k", "commit": "abc"}
            loads = ("load_average_at_start", "load_average_at_end", "busy_percent", "stolen_percent")
            facts |= dict.fromkeys(loads, 0.0)
            rows = [linkreport.no_goal("a", "none", 1.0), linkreport.at_least("b", 1, 2)]
            whole = {"machine": facts, "command": "c", "seconds": 1, "targets": rows}
            with contextlib.redirect_stdout(io.StringIO()):
                self.assertEqual(linkreport.write(options, whole, [], [Path(folder, "charts", "p.svg")]), 0)
                rows.append(linkreport.at_most("c", 1, 2))
                self.assertEqual(linkreport.write(options, whole, []), 1)
            self.assertEqual(json.loads(options.json.read_text())["targets"], rows)
            self.assertIn("commit: abc", options.markdown.read_text())
            self.assertEqual(sorted(path.name for path in Path(folder).iterdir()), ["a.json", "a.md"])

    def test_small_calls_beside_a_transfer(self):
        def with_control(transport, p99):
            figures = {"p50_ms": 50.0, "p99_ms": 51.0, "max_ms": 52.0}
            control = {"idle": figures, "loaded": {**figures, "p99_ms": p99}}
            return sample(transport, client={"control": control, "goodput_mbit": 90.0})

        samples = [with_control("quic", 101.0), with_control("grpc-bbr", 1051.0)]
        rows = linkreport.control_targets(samples)
        self.assertEqual([round(row["measured"], 2) for row in rows], [1.0, 0.05])
        self.assertTrue(all(row["met"] for row in rows))
        self.assertIn("101.0", linkreport.control_table(samples))

    def test_first_answers_in_round_trips(self):
        samples = [sample(name, client={"ttfb_ms": ms}) for name, ms in (("quic", 120.0), ("grpc-bbr", 150.0), ("quic, again", 60.0))]
        self.assertEqual([row["met"] for row in linkreport.ttfb_targets(samples)], [False, True, False])
        self.assertIn("2.40", linkreport.ttfb_table(samples))


class Options(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        program = Path(folder.name, "program")
        program.touch()
        program.chmod(stat.S_IRWXU)
        paths = unittest.mock.patch.dict(os.environ, FLWR_EMU_BIN=str(program), FLWR_LINK_BIN=str(program))
        paths.start()
        self.addCleanup(paths.stop)

    def test_quick_only_changes_defaults(self):
        options = wan.parse(["--no-chrt", "--quick", "--seeds", "1"])
        self.assertEqual(options.profiles, ["wan-20-0.1", "wan-50-0.5"])
        self.assertEqual((options.directions, options.megabytes, list(options.seeds)), (["up"], 30, [1]))
        options = wan.parse(["--no-chrt"])
        self.assertEqual((options.profiles, options.directions, len(options.seeds)), (None, ["up", "down"], 5))
        self.assertEqual(len(options.transports), 5)
        self.assertEqual(len(options.pairs), 5)

    def test_the_matrix_is_measured_if_nothing_else_is_named(self):
        def named(*flags):
            return wan.parse(["--no-chrt", *flags]).experiments

        self.assertEqual(named(), ["matrix"])
        self.assertEqual(named("--ttfb", "--control"), ["ttfb", "control"])
        self.assertEqual(named("--all"), list(experiments.ALL))

    def test_nonsense_is_refused(self):
        for arguments in (
            ["--transports", "grpc"],
            ["--directions", "sideways"],
            ["--seeds", "0"],
            ["--pairs", "quic"],
            ["--pairs", "quic+grpc-bbr"],
            ["--resume"],
        ):
            with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()):
                wan.parse(arguments)

    def test_a_run_takes_some_seconds_at_the_rate_of_the_link(self):
        self.assertEqual([experiments.size(rate) for rate in (50, 100, 200, 1000)], [84, 84, 150, 750])

    def test_each_seed_begins_with_another_transport(self):
        self.assertEqual([experiments.in_turn(["a", "b", "c"], seed)[0] for seed in (1, 2, 3)], ["b", "c", "a"])


if __name__ == "__main__":
    unittest.main()

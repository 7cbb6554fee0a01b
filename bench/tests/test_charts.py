"""What is drawn of results: `python -m unittest discover bench/tests`."""

import sys
import tempfile
import unittest
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fedbench import charts, svg  # noqa: E402
from fedbench.svg import Bar, Chart, Group  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"
CHART = Chart("Title & <more>", "note", "milliseconds", "transport")


def drawn(groups):
    return ElementTree.fromstring(svg.draw(CHART, groups))


def bars_of(root):
    return [one for one in root.iter(f"{SVG}rect") if one.find(f"{SVG}title") is not None]


def texts_of(root):
    return [one.text for one in root.iter(f"{SVG}text")]


class Picture(unittest.TestCase):
    def test_heights_are_in_proportion_and_a_series_has_one_colour(self):
        groups = [
            Group(("wan",), (Bar("quic", 0.8, 0.7, 0.9), Bar("tls", 0.4, 0.4, 0.4)), goal=0.6),
            Group(("lan",), (Bar("quic", 0.2, 0.1, 0.3),)),
        ]
        root = drawn(groups)
        bars = bars_of(root)
        heights = [float(bar.get("height")) for bar in bars]
        self.assertAlmostEqual(heights[0] / heights[1], 2, places=2)
        self.assertAlmostEqual(heights[0] / heights[2], 4, places=2)
        self.assertEqual(bars[0].get("fill"), bars[2].get("fill"))
        self.assertNotEqual(bars[0].get("fill"), bars[1].get("fill"))
        goals = [line for line in root.iter(f"{SVG}line") if line.get("class") == "goal"]
        self.assertEqual(len(goals), 2, "one across the first group, one in the legend")
        middle = (float(bars[0].get("y")) + float(bars[1].get("y"))) / 2
        self.assertAlmostEqual(float(goals[1].get("y1")), middle, places=1)

    def test_everything_is_labelled_and_escaped(self):
        texts = texts_of(drawn([Group(("wan", "shallow"), (Bar("quic", 1, 1, 1),))]))
        for expected in ("Title & <more>", "note", "milliseconds", "transport", "wan", "shallow", "quic"):
            self.assertIn(expected, texts)
        self.assertNotIn(CHART.goal_title, texts, "there is no goal")

    def test_everything_is_on_the_page_however_many_bars_there_are(self):
        bars = tuple(Bar(f"transport-{number}", 0.9, 0.1, 1.0) for number in range(8))
        root = drawn([Group((f"wan-{number}",), bars, 0.9) for number in range(8)])
        placed = sorted((float(bar.get("x")), float(bar.get("width"))) for bar in bars_of(root))
        self.assertTrue(all(x + width <= after for (x, width), (after, _) in zip(placed, placed[1:])), "bars overlap")
        for one in root.iter():
            for name in ("x", "x1", "x2"):
                self.assertTrue(0 <= float(one.get(name, 0)) <= svg.WIDTH, ElementTree.tostring(one))

    def test_scales_are_round_and_high_enough(self):
        for highest, last in ((0.95, 1.0), (1.0, 1.0), (1.9, 2.0), (7, 8), (1600, 2000), (0, 1.0)):
            ticks = svg.scale(highest)
            self.assertAlmostEqual(ticks[-1], last)
            self.assertEqual(ticks[0], 0)
            self.assertTrue(3 <= len(ticks) <= 7, ticks)


class Results(unittest.TestCase):
    def test_a_file_for_each_kind_of_result(self):
        def cell(profile, direction):
            share = {"median": 0.9, "min": 0.8, "max": 1.0}
            return {"profile": profile, "direction": direction, "transport": "quic", "goodput_share": share}

        figures = {"p50_ms": 60.0, "p99_ms": 100.0, "max_ms": 110.0}
        measured = {"control": {"idle": figures, "loaded": figures}}
        calls = {"transport": "quic", "asked": {"rtt_ms": 50}, "client": measured}
        both = {"rtt_ms": 20, "pair": "quic+tls-bbr", "flows": [{"share": 1.2}, {"share": 0.7}]}
        results = {"control": [calls], "fairness": [both]}
        with tempfile.TemporaryDirectory() as folder:
            cells = [cell("wan-50-0.5-shallow", "up"), cell("lan", "down")]
            paths = charts.draw(Path(folder, "new"), cells, results)
            stems = [path.stem for path in paths]
            self.assertEqual(stems, ["wan-goodput-up", "wan-goodput-down", "wan-control", "wan-fairness"])
            texts = {path.stem: texts_of(ElementTree.parse(path).getroot()) for path in paths}
        self.assertIn("shallow", texts["wan-goodput-up"])
        self.assertIn("+ tls-bbr", texts["wan-fairness"])
        self.assertIn("p99 loaded", texts["wan-control"])


if __name__ == "__main__":
    unittest.main()

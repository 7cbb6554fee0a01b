"""Bars with whiskers and goals, as SVG that is readable on light and on dark pages."""

import math
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, PLOT_HEIGHT = 1080, 300
LEFT, RIGHT, TOP = 64, 20, 92
LABEL_LINE, BELOW_LABELS = 14, 42
GAP_SHARE, BAR_WIDTH_MAX = 0.24, 34
LETTER_WIDTH = 6.6
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c", "#9b8700", "#7a5fc0")
"""After Okabe and Ito, whose colours differ for everybody."""

STYLE = """
  text { font: 12px system-ui, "Segoe UI", Roboto, "DejaVu Sans", Arial, sans-serif; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 }
  .note { fill: #57606a }
  .page { fill: #ffffff }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .axis, .whisker { stroke: #1f2328; stroke-width: 1.3; fill: none }
  .goal { stroke: #cf222e; stroke-width: 2; stroke-dasharray: 5 3 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .note { fill: #9da7b3 }
    .page { fill: #0d1117 }
    .grid { stroke: #30363d }
    .axis, .whisker { stroke: #e6edf3 }
    .goal { stroke: #ff7b72 }
  }
"""


@dataclass(frozen=True)
class Bar:
    """A figure with its spread; bars of one series have one colour."""

    series: str
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """Bars side by side. The goal, if there is one, is a line across them; the label has one line or more."""

    label: tuple
    bars: tuple
    goal: float = None


@dataclass(frozen=True)
class Chart:
    """What is around the bars."""

    title: str
    note: str
    y_title: str
    x_title: str
    goal_title: str = "goal"


def draw(chart, groups):
    """The whole picture as text."""
    series = list(dict.fromkeys(bar.series for group in groups for bar in group.bars))
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(series)}
    highest = max([bar.high for group in groups for bar in group.bars] + [group.goal or 0 for group in groups])
    ticks = scale(highest)
    height = TOP + PLOT_HEIGHT + LABEL_LINE * max(len(group.label) for group in groups) + BELOW_LABELS
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(chart.title, {chr(34): "&quot;"})}">',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}"/>',
        text(LEFT, 26, chart.title, "title"),
        text(LEFT, 46, chart.note, "note"),
        *legend(chart, colours, any(group.goal is not None for group in groups)),
        *axes(chart, ticks, height),
    ]
    width = (WIDTH - LEFT - RIGHT) / len(groups)
    for number, group in enumerate(groups):
        parts += bars(group, LEFT + number * width, width, ticks[-1], colours)
    return "\n".join([*parts, "</svg>\n"])


def scale(highest):
    """Round numbers from 0 to at least `highest`, three to seven of them."""
    highest = highest or 1
    power = 10 ** math.floor(math.log10(highest))
    step = next(power * of for of in (0.2, 0.5, 1, 2) if highest <= 6 * power * of)
    return [round(number * step, 9) for number in range(math.ceil(round(highest / step, 6)) + 1)]


def axes(chart, ticks, height):
    """Both axes with their titles, and a line for each tick."""
    right, bottom = WIDTH - RIGHT, TOP + PLOT_HEIGHT
    for tick in ticks:
        y = level(tick, ticks[-1])
        yield f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield text(LEFT - 8, y + 4, f"{tick:g}", anchor="end")
    yield f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>'
    middle = TOP + PLOT_HEIGHT / 2
    yield text(16, middle, chart.y_title, anchor="middle", turn=f"rotate(-90 16 {middle:g})")
    yield text((LEFT + right) / 2, height - 10, chart.x_title, "note", "middle")


def legend(chart, colours, has_goal):
    """One row below the note."""
    x, y = LEFT, 66
    for name, colour in colours.items():
        yield f'<rect x="{x:.0f}" y="{y}" width="12" height="12" fill="{colour}"/>'
        yield text(x + 18, y + 10, name)
        x += 36 + len(name) * LETTER_WIDTH
    if has_goal:
        yield f'<line class="goal" x1="{x:.0f}" x2="{x + 24:.0f}" y1="{y + 6}" y2="{y + 6}"/>'
        yield text(x + 30, y + 10, chart.goal_title)


def bars(group, left, width, top, colours):
    """A group with its label, whiskers and goal."""
    each = min(width * (1 - GAP_SHARE) / len(group.bars), BAR_WIDTH_MAX)
    x = left + (width - each * len(group.bars)) / 2
    begin, bottom = x, TOP + PLOT_HEIGHT
    for bar in group.bars:
        y, middle = level(bar.median, top), x + each / 2
        low, high = level(bar.low, top), level(bar.high, top)
        yield (
            f'<rect x="{x + 1:.1f}" y="{y:.1f}" width="{each - 2:.1f}" height="{bottom - y:.1f}" '
            f'fill="{colours[bar.series]}"><title>{escape(bar.series)}: {bar.median:.3g} '
            f"[{bar.low:.3g}-{bar.high:.3g}]</title></rect>"
        )
        serifs = "".join(f"M{middle - 3:.1f} {at:.1f}h6" for at in (low, high))
        yield f'<path class="whisker" d="M{middle:.1f} {low:.1f}V{high:.1f}{serifs}"/>'
        x += each
    if group.goal is not None:
        y = level(group.goal, top)
        yield f'<line class="goal" x1="{begin - 4:.1f}" x2="{x + 4:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
    for number, line in enumerate(group.label):
        yield text(left + width / 2, bottom + 18 + LABEL_LINE * number, line, anchor="middle")


def level(value, top):
    """Where a value is on the page."""
    return TOP + PLOT_HEIGHT * (1 - value / top)


def text(x, y, content, kind=None, anchor="start", turn=None):
    """A line of text."""
    extra = (f' class="{kind}"' if kind else "") + (f' transform="{turn}"' if turn else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(content)}</text>'

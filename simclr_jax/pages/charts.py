"""Curves over the steps of runs as parts of a page: where each line, tick and number lies.

The macro `chart` of templates/charts.html draws what `drawn` returns, as SVG.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from simclr_jax.errors import ArgumentError

WIDTH, HEIGHT = 380, 210  # The size of a chart, in the pixels of a small screen.
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 10, 34  # What lies around the lines.
MOST = 500  # The largest number of points that are drawn of a line.
STRETCHES = 100  # The number of stretches of a long line whose means are drawn.
ROWS = 9  # The largest number of rows of the table below a chart.
COLOURS = 6  # The number of colours of a page; then lines are dashed.
_MARKED = 24  # The largest number of points that are marked one by one.
_DASHES = ("", "5 3", "1.5 2.5", "8 3 2 3")
_HOVERED = ("name", "colour", "points")  # What the script of the page reads of a line.


Point = tuple[float, float | None, float, float | None]  # See `_shown`.


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
      name: What it is of, for the legend.
      x: The places along the axis, ascending.
      y: The values; None where there is none, which leaves a gap.
      number: Its number from 0, which gives its colour; None: its place in the chart.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    number: int | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Chart:
    """Lines that share their axes.

    Attributes:
      title: What is drawn.
      lines: The lines; each has a value at least.
      x_label: What the places along the axis are, such as 'step'.
      percent: Whether the values are shares, which are shown as percentages.
      level: A value to compare with, and what it is of; None: there is none.
      note: A sentence about the chart, or nothing.
    """

    title: str
    lines: Sequence[Line]
    x_label: str = "step"
    percent: bool = False
    level: tuple[float, str] | None = None
    note: str = ""


def has_values(line: Line) -> bool:
    """Whether a line has a value that can be drawn.

    >>> has_values(Line("loss", [1, 2], [None, math.nan])), has_values(Line("loss", [1], [0.0]))
    (False, True)
    """
    return any(_is_number(value) for value in line.y)


def thinned(line: Line, most: int = MOST) -> Line:
    """A line of fewer points, which keeps its ends and, of each stretch, the extremes and a gap.

    >>> thinned(Line("loss", range(9), [5, 4, 9, 3, 2, 2, 0, 1, 1]), most=4)
    Line(name='loss', x=[0, 2, 6, 8], y=[5, 9, 0, 1])

    Args:
      line: The line.
      most: About the largest number of points that are left, at least 4.
    """
    count = len(line.x)
    if count <= most:
        return line
    kept = {0, count - 1}
    stretches = max(1, (most - 2) // 2)
    value = [each if _is_number(each) else math.nan for each in line.y]
    for stretch in range(stretches):
        part = range(stretch * count // stretches, (stretch + 1) * count // stretches)
        known = [row for row in part if math.isfinite(value[row])]
        if known:
            kept |= {min(known, key=value.__getitem__), max(known, key=value.__getitem__)}
        kept |= set([row for row in part if not math.isfinite(value[row])][:1])
    rows = sorted(kept)
    x, y = [line.x[row] for row in rows], [line.y[row] for row in rows]
    return replace(line, x=x, y=y)


def means(line: Line, stretches: int = STRETCHES) -> Line:
    """A line of the means of stretches of a long line, each in the middle of its stretch.

    >>> means(Line("loss", [1, 2, 3, 4], [1, 3, 5, None]), stretches=2)
    Line(name='loss', x=[1.5, 3.5], y=[2.0, 5.0])

    Args:
      line: The line, of more points than stretches.
      stretches: The number of stretches; one without a value is a gap.
    """
    count = len(line.x)
    x: list[float] = []
    y: list[float | None] = []
    for stretch in range(stretches):
        part = slice(stretch * count // stretches, (stretch + 1) * count // stretches)
        known = [value for value in line.y[part] if _is_number(value)]
        x.append(statistics.fmean(line.x[part]))
        y.append(statistics.fmean(known) if known else None)
    return Line(line.name, x, y)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from at most `low` to at least `high`, for an axis.

    >>> ticks(0, 842), ticks(8.31, 9.97)
    ([0.0, 200.0, 400.0, 600.0, 800.0, 1000.0], [8.0, 8.5, 9.0, 9.5, 10.0])

    Args:
      low: The least value.
      high: The largest value; where it is the least one too, there is room around it.
      most: The largest number of steps between them.
    """
    if high <= low:
        low, high = (low - abs(low) / 2, low + abs(low) / 2) if low else (0.0, 1.0)
    unit = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(
        unit * each
        for each in (1, 2, 2.5, 5, 10, 20)
        if math.ceil(high / (unit * each) - 1e-9) - math.floor(low / (unit * each) + 1e-9) <= most
    )
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) + 0.0 for number in range(first, last + 1)]


def in_words(value: float | None, *, percent: bool = False) -> str:
    """A value as text of four digits; a dash for none.

    >>> in_words(0.98765, percent=True), in_words(9.96123), in_words(1437), in_words(None)
    ('98.8%', '9.961', '1,437', '—')
    """
    if not _is_number(value):
        return "—"
    if percent:
        return f"{value:.1%}"
    if value == round(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def drawn(chart: Chart) -> dict[str, Any]:
    """What the macro `chart` draws of a chart.

    Raises:
      ArgumentError: A line has no value.
    """
    for line in chart.lines:
        if not has_values(line):
            raise ArgumentError("lines", line.name, "must have a value")
    lines = [thinned(line) for line in chart.lines]
    values = [value for line in lines for value in line.y if _is_number(value)]
    values += [chart.level[0]] if chart.level else []
    y_ticks = ticks(min(values), max(values), 4)
    places = [place for line in lines for place in line.x]
    x_ticks = _places(min(places), max(places))
    x_low, x_high = min(places), max(places)
    if x_low == x_high:  # A single place is in the middle.
        x_low, x_high = x_low - 1, x_high + 1

    def across(x: float) -> float:
        return round(LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), 1)

    def down(y: float) -> float:
        share = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def placed(line: Line) -> list[Point]:
        return [
            (across(x), down(y) if _is_number(y) else None, x, y)
            for x, y in zip(line.x, line.y, strict=True)
        ]

    shown = []
    for number, (line, whole) in enumerate(zip(lines, chart.lines, strict=True)):
        # What is noise would hide where a long line goes.
        mean = placed(means(whole)) if len(whole.x) > MOST else []
        own = number if line.number is None else line.number
        of_line = _shown(line.name, own, placed(line), percent=chart.percent)
        shown.append({**of_line, "means": _path(mean)})
    level = chart.level and {"y": down(chart.level[0]), "name": chart.level[1]}
    return {
        "title": chart.title,
        "summary": _summary(chart),
        "x_label": chart.x_label,
        "lines": shown,
        "data": json.dumps([{key: line[key] for key in _HOVERED} for line in shown]),
        "x_ticks": [(across(tick), in_words(tick)) for tick in x_ticks],
        "y_ticks": [(down(tick), _tick(tick, chart, y_ticks)) for tick in y_ticks],
        "level": level,
        "note": chart.note,
        "head": [chart.x_label, *(line.name for line in lines)],
        "rows": _rows(chart),
        "size": (WIDTH, HEIGHT),
        "frame": (LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM),
    }


def _shown(name: str, number: int, points: Sequence[Point], *, percent: bool) -> dict[str, Any]:
    """What is drawn of a line.

    Args:
      name: Its name.
      number: Its number, which gives its colour.
      points: The place on the chart and the values of each of its points; no place down: a gap.
      percent: Whether the values are shares.
    """
    known = [point for point in points if point[1] is not None]
    return {
        "name": name,
        "colour": number % COLOURS + 1,
        "dash": _DASHES[number // COLOURS % len(_DASHES)],
        "path": _path(points),
        "marks": [point[:2] for point in known] if len(known) <= _MARKED else [],
        "last": in_words(known[-1][3], percent=percent),
        "points": [[px, py, in_words(x), in_words(y, percent=percent)] for px, py, x, y in known],
    }


def _is_number(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _places(low: float, high: float) -> list[float]:
    """The ticks below a chart, within the lines; whole ones where the ends are whole numbers."""
    whole = low == round(low) and high == round(high)
    found = [tick for tick in ticks(low, high, 4) if low <= tick <= high]
    return [tick for tick in found if tick == round(tick) or not whole] if high > low else [low]


def _tick(tick: float, chart: Chart, all_ticks: Sequence[float]) -> str:
    if not chart.percent:
        return in_words(tick)
    digits = 0 if all(abs(each * 100 - round(each * 100)) < 1e-9 for each in all_ticks) else 1
    return f"{tick:.{digits}%}"


def _path(points: Sequence[Point]) -> str:
    """The points as the path of an SVG; a new part begins after a gap."""
    parts, begun = [], False
    for across, down, *_ in points:
        if down is not None:
            parts.append(f"{'L' if begun else 'M'}{across:g} {down:g}")
        begun = down is not None
    return "".join(parts)


def _summary(chart: Chart) -> str:
    """The chart in a sentence, for those who do not see it."""
    found = []
    for line in chart.lines:
        values = [value for value in line.y if _is_number(value)]
        first, low, high, last = (
            in_words(value, percent=chart.percent)
            for value in (values[0], min(values), max(values), values[-1])
        )
        found.append(f"{line.name} from {first} to {last}, between {low} and {high}")
    return f"{chart.title} by {chart.x_label}: {'; '.join(found)}."


def _rows(chart: Chart) -> list[list[str]]:
    """Some of the values, evenly spaced, as the rows of a table."""
    known = [
        {x: y for x, y in zip(line.x, line.y, strict=True) if _is_number(y)} for line in chart.lines
    ]
    places = sorted(set().union(*known))
    if len(places) > ROWS:
        places = [places[round(k * (len(places) - 1) / (ROWS - 1))] for k in range(ROWS)]
    return [
        [in_words(x), *(in_words(values.get(x), percent=chart.percent) for values in known)]
        for x in places
    ]

"""The panels of a sweep's figure: matrices, lines and bars."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from etils import epy

from simclr_jax.pages import tables
from simclr_jax.pages.tables import MEAN, Label, Shown, Table

with epy.lazy_imports():
    import matplotlib as mpl
    from matplotlib import cm, colors, lines, patches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vPX"
_CHARACTERS = 124  # The characters below a panel of the whole width.
_NUMBERS = 24  # The most bars with a number above each.
_LOGARITHMIC = 8  # The ratio of the largest to the smallest number from which x is a logarithm.


class Panel(NamedTuple):
    """What a panel shows: a measure's numbers, or the paper's."""

    measure: str
    of_paper: bool


Fill = Callable[["Axes", Table, Panel], None]


def arranged(table: Table) -> list[list[Panel | None]]:
    """The rows of panels, of one or two; None: an empty place.

    The paper's numbers are beside ours; with two measures, which are compared with each other,
    below; and below too where the panels need all of the width.
    """
    measures, kind = list(table["measures"]), table["figure"]["kind"]
    ours: list[Panel | None] = [Panel(measure, False) for measure in measures]
    papers = [
        Panel(measure, True) if kind != "heatmap" and content(table, Panel(measure, True)) else None
        for measure in measures
    ]
    if _needs_width(table):
        pairs = zip(ours, papers, strict=True)
        return [[panel] for pair in pairs for panel in pair if panel]
    if len(measures) == 2:
        return [ours, *([papers] if any(papers) else [])]
    if any(papers):
        return [list(pair) for pair in zip(ours, papers, strict=True)]
    across = min(len(ours), 2)
    places = [*ours, *[None] * (-len(ours) % across)]
    return [places[i : i + across] for i in range(0, len(places), across)]


def _needs_width(table: Table) -> bool:
    columns, kind = table["columns"], table["figure"]["kind"]
    if kind == "heatmap":
        return len(columns) > 4
    return _crowded(columns, _CHARACTERS // 2) or (
        kind == "bars" and len(columns) * len(table["rows"]) > 10
    )


def height(table: Table, across: int) -> float:
    """The height in inches of a row of panels."""
    if table["figure"]["kind"] != "heatmap":
        return 3.2 if across == 2 else 2.9
    with_paper = any(cell["paper"] is not None for cell in table["cells"])
    return 0.9 + (0.62 if with_paper else 0.5) * len(table["rows"])


def content(table: Table, panel: Panel) -> dict[tuple[Label, Label], Shown]:
    """{(row, column): what a panel shows there}."""
    found = tables.shown(table, panel.measure)
    if not panel.of_paper:
        return found
    papers = {key: cell.paper for key, cell in found.items() if cell.paper is not None}
    return {key: Shown(paper, None, {}, None) for key, paper in papers.items()}


def heatmap(axes: Axes, table: Table, panel: Panel) -> None:
    """A matrix of rows and columns, with the numbers and the paper's in the cells."""
    found, columns = content(table, panel), tables.columns(table)
    low, high = _range(table, panel)
    scale = cm.ScalarMappable(colors.Normalize(low, high), "viridis")
    places = {column: x + 0.3 * (column is MEAN) for x, column in enumerate(columns)}
    for y, row in enumerate(table["rows"]):
        for column, x in places.items():
            if (row, column) in found:
                _matrix_cell(axes, table, panel, found[row, column], scale, (x, y))
            else:
                axes.text(x, y, tables.NO_PART, ha="center", va="center", color="0.6")
    axes.set_xticks([*places.values()], [_wrapped(tables.text(name), 12) for name in columns])
    axes.set_yticks(range(len(table["rows"])), [tables.text(row) for row in table["rows"]])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlim(-0.5, max(places.values()) + 0.5)
    axes.set_ylim(len(table["rows"]) - 0.5, -0.5)
    axes.set(xlabel=table["axes"][1], ylabel=table["axes"][0], title=_title(table, panel))
    bar = axes.figure.colorbar(scale, ax=axes, label=tables.unit(table, panel.measure), pad=0.02)
    bar.outline.set_visible(False)


def _matrix_cell(
    axes: Axes, table: Table, panel: Panel, cell: Shown, scale: Any, place: tuple[float, float]
) -> None:
    x, y = place
    size: Any = {"xy": (x - 0.48, y - 0.47), "width": 0.96, "height": 0.94}
    if cell.mean is None:
        axes.add_patch(patches.Rectangle(**size, facecolor="0.95", hatch="////", linewidth=0))
        ink, lines_of_cell = "0.25", [tables.PENDING]
    else:
        fill = scale.to_rgba(cell.mean)
        axes.add_patch(patches.Rectangle(**size, facecolor=fill, linewidth=0))
        weights = zip((0.2126, 0.7152, 0.0722), fill[:3], strict=True)
        luminance = sum(weight * part**2.2 for weight, part in weights)
        digits = tables.decimals(table, panel.measure)
        ink, lines_of_cell = "black" if luminance > 0.25 else "white", [f"{cell.mean:.{digits}f}"]
        if cell.spread is not None:
            lines_of_cell.append(f"± {cell.spread:.{digits}f}")
    if cell.paper is not None:
        lines_of_cell.append(f"paper {tables.paper_text(table, panel.measure, cell.paper)}")
    step = 0.27 if cell.paper is not None else 0.32
    for i, words in enumerate(lines_of_cell):
        offset = step * (i - (len(lines_of_cell) - 1) / 2)
        axes.text(
            x, y + offset, words, ha="center", va="center", color=ink, size=10.5 if i == 0 else 8.5
        )


def line_plot(axes: Axes, table: Table, panel: Panel) -> None:
    """A line for each row over the columns, with the spread of seeds as error bars."""
    found = content(table, panel)
    places, logarithmic = spaced(table["columns"])
    gap = min((b - a for a, b in pairwise(places.values())), default=1.0)
    rows = table["rows"]
    for i, row in enumerate(rows):
        cells = {x: found[row, column] for column, x in places.items() if (row, column) in found}
        shift = 0.0 if panel.of_paper else gap * 0.18 * ((i + 0.5) / len(rows) - 0.5)
        means = [math.nan if cell.mean is None else cell.mean for cell in cells.values()]
        axes.errorbar(
            [x + shift for x in cells],
            means,
            [math.nan if cell.spread is None else cell.spread for cell in cells.values()],
            color=_colour(rows, i),
            marker=_marker(i),
            linestyle="--" if panel.of_paper else "-",
            markersize=5,
            capsize=2.5,
            linewidth=1.6,
            elinewidth=1.2,
        )
    _finish(axes, table, panel, places)
    axes.set_xlabel(table["axes"][1] + (" (logarithmic)" if logarithmic else ""))


def bars(axes: Axes, table: Table, panel: Panel) -> None:
    """A group of bars for each column, with the seeds as dots; of the paper's numbers, marks."""
    found, rows = content(table, panel), table["rows"]
    width = 0.8 / len(rows)
    for x, column in enumerate(table["columns"]):
        for i, row in enumerate(rows):
            if (row, column) in found:
                at = x + width * (i + 0.5 - len(rows) / 2)
                _bar(axes, table, panel, found[row, column], at, width, i)
    low, high = _limits(table, panel)
    if low > 0 and not panel.of_paper:
        axes.axhline(low + 0.05 * (high - low), color="white", linewidth=4)
    _finish(axes, table, panel, {column: float(x) for x, column in enumerate(table["columns"])})
    axes.set_xlabel(table["axes"][1])


def _bar(
    axes: Axes, table: Table, panel: Panel, cell: Shown, x: float, width: float, i: int
) -> None:
    colour = _colour(table["rows"], i)
    near: Any = {"ha": "center", "va": "bottom"}
    if cell.mean is None:
        axes.text(x, _limits(table, panel)[0], tables.PENDING, color="0.4", size=12, **near)
        return
    seeds = [*cell.values.values()]
    if panel.of_paper:
        axes.plot(x, cell.mean, color=colour, marker=_marker(i), markersize=7)
    else:
        axes.bar(x, cell.mean, width * 0.92, color=_light(colour))
        if cell.spread is not None:
            axes.errorbar(x, cell.mean, cell.spread, color="0.15", capsize=4, elinewidth=1.2)
        axes.plot([x + width * 0.25] * len(seeds), seeds, ".", color="0.15", markersize=4)
    if len(table["rows"]) * len(table["columns"]) > _NUMBERS:
        return
    top = max([cell.mean + (cell.spread or 0.0), *seeds])
    number = f"{cell.mean:.{tables.decimals(table, panel.measure)}f}"
    above = (0, 6 if panel.of_paper else 3)
    axes.annotate(number, (x, top), above, textcoords="offset points", size=8.5, **near)


KINDS: dict[str, Fill] = {"heatmap": heatmap, "lines": line_plot, "bars": bars}


def any_broken(table: Table) -> bool:
    """Whether bars do not start at zero."""
    return any(_limits(table, Panel(measure, False))[0] > 0 for measure in table["measures"])


def legend(table: Table) -> dict[str, Any]:
    """The samples of the rows by their labels; none of one row or of a matrix."""
    rows, kind = table["rows"], table["figure"]["kind"]
    if len(rows) < 2 or kind == "heatmap":
        return {}
    samples: dict[str, Any] = {}
    for i, row in enumerate(rows):
        colour = _colour(rows, i)
        samples[tables.text(row)] = (
            patches.Patch(color=_light(colour))
            if kind == "bars"
            else lines.Line2D([], [], color=colour, marker=_marker(i), markersize=5)
        )
    return samples


def _finish(axes: Axes, table: Table, panel: Panel, places: dict[Label, float]) -> None:
    """Sets the title, the limits and the ticks of lines and bars."""
    axes.set_ylim(*_limits(table, panel))
    axes.set(title=_title(table, panel), ylabel=tables.unit(table, panel.measure))
    axes.grid(visible=True, axis="y")
    axes.set_xlim(min(places.values()) - 0.5, max(places.values()) + 0.5)
    characters = _CHARACTERS if len(arranged(table)[0]) == 1 else _CHARACTERS // 2
    names = [_wrapped(tables.text(column), characters // len(places)) for column in places]
    axes.set_xticks([*places.values()], names)
    if _crowded(table["columns"], characters):
        axes.tick_params(axis="x", labelrotation=35)
        for tick in axes.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")


def _crowded(columns: Sequence[Label], characters: int) -> bool:
    """Whether labels have words that are longer than a column is wide."""
    words = [word for column in columns for word in tables.text(column).split()]
    return max(map(len, words), default=0) > characters // len(columns)


def _title(table: Table, panel: Panel) -> str:
    label = table["measures"][panel.measure]["label"]
    return f"{label}: the paper" if panel.of_paper else label


def spaced(columns: Sequence[Label]) -> tuple[dict[Label, float], bool]:
    """{column: x} from left to right, and whether x is a logarithm (of base 2) or a position.

    Numbers ascend, whatever the order of the table's columns.
    """
    numbers = sorted(column for column in columns if not isinstance(column, str))
    if len(numbers) < len(columns):
        return {column: float(x) for x, column in enumerate(columns)}, False
    if numbers[0] > 0 and numbers[-1] / numbers[0] > _LOGARITHMIC:
        return {column: math.log2(column) for column in numbers}, True
    return {column: float(x) for x, column in enumerate(numbers)}, False


def _range(table: Table, panel: Panel) -> tuple[float, float]:
    """The smallest and the largest number, error bars included, of panels of the same metric."""
    metric = table["measures"][panel.measure]["metric"]
    alike = [name for name, about in table["measures"].items() if about["metric"] == metric]
    cells = [
        cell for name in alike for cell in content(table, panel._replace(measure=name)).values()
    ]
    bars = table["figure"]["kind"] != "heatmap"
    numbers = [
        number
        for cell in cells
        if cell.mean is not None
        for spread in [(cell.spread or 0.0) if bars else 0.0]
        for number in (
            cell.mean - spread,
            cell.mean + spread,
            *(cell.values.values() if bars else ()),
        )
        if math.isfinite(number)
    ]
    return (min(numbers), max(numbers)) if numbers else (0.0, 1.0)


def _limits(table: Table, panel: Panel) -> tuple[float, float]:
    """The limits of y, with room for numbers above bars and marks."""
    low, high = _range(table, panel)
    room = (high - low or abs(high) or 1.0) * 0.12
    if table["figure"]["kind"] == "lines":
        return low - room, high + room
    if panel.of_paper:
        return low - room, high + 2 * room
    if low < 0 or high - low > 0.4 * high:  # Differences show although bars start at zero.
        return low - 2 * room if low < 0 else 0.0, max(high, 0.0) * 1.12
    return max(low - 6 * room, 0.0), high + 2 * room


def _marker(i: int) -> str:
    return _MARKERS[i % len(_MARKERS)]


def _light(colour: Any) -> Any:
    return tuple(0.25 + 0.75 * part for part in colors.to_rgb(colour))


def _colour(rows: list[Label], i: int) -> Any:
    """A row's colour: of a scale where rows are numbers, else of a palette for all eyes."""
    if len(rows) > len(_COLOURS) or all(not isinstance(row, str) for row in rows):
        return mpl.colormaps["viridis"](0.8 * i / max(len(rows) - 1, 1))
    return _COLOURS[i]


def _wrapped(words: str, characters: int) -> str:
    return "\n".join(textwrap.wrap(words, max(characters, 1), break_long_words=False)) or words

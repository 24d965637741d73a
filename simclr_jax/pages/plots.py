"""A sweep's results as a figure, drawn by matplotlib."""

from __future__ import annotations

import importlib
import io
import textwrap
from typing import TYPE_CHECKING, Any

from etils import epy

from simclr_jax.errors import HostError, chosen
from simclr_jax.pages import panels, tables
from simclr_jax.pages.tables import Table

with epy.lazy_imports():
    import matplotlib as mpl
    from matplotlib import figure as figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSING = "a figure needs matplotlib: pip install 'simclr_jax[figures]'"
WIDTH = 9.0  # Inches; at 100 pixels an inch, letters are as high as those of a web page.
# What differs from matplotlib's defaults. SVGs hold their words as text, and the same bytes each
# time; no word is read as a formula.
STYLE: Any = {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "0.88",
    "hatch.color": "0.75",
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.fonttype": "none",
    "svg.hashsalt": "simclr_jax",
    "text.parse_math": False,
}


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    try:
        importlib.import_module("matplotlib")
    except ImportError:
        return False
    return True


def draw(table: Table) -> dict[str, bytes]:
    """The figure of a sweep, as the contents of figure.svg and figure.png by the file's name.

    The same table gives the same bytes with the same version of matplotlib, whose settings are
    neither used nor changed.

    - heatmap: A matrix for each measure, with numbers in its cells; what has not run is hatched.
    - lines: A line for each row over the columns, which are spaced by their logarithm if they are
      numbers that span more than a factor of 8. Error bars are the spread of seeds.
    - bars: A group of bars for each column, with the seeds as dots. Where the differences could not
      be seen otherwise, bars are broken, and do not start at zero.

    The paper's numbers stand in the cells of a matrix, and else in panels of their own, since they
    are of another scale.

    Args:
      table: The sweep's results, as `tables` describes them. Of kind none there is no figure.

    Raises:
      ArgumentError: There is no such kind of figure.
      HostError: matplotlib is not installed.
    """
    kind = table["figure"]["kind"]
    if kind == "none":
        return {}
    fill = chosen(panels.KINDS, "kind", kind)
    if not can_draw():
        raise HostError(MISSING)
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        figure = _figure(table, fill)
        return {
            "figure.svg": _saved(figure, "svg", {"Title": table["title"], "Date": None}),
            "figure.png": _saved(figure, "png", {"Title": table["title"], "Software": None}),
        }


def _saved(figure: Figure, form: str, metadata: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, metadata=metadata)
    return buffer.getvalue()


def _figure(table: Table, fill: panels.Fill) -> Figure:
    """The title, the setting and the legend, the panels below, and a note at the bottom."""
    grid = panels.arranged(table)
    title, setting, note = (
        textwrap.wrap(words, width)
        for words, width in ((table["title"], 85), (table["setting"], 138), (_note(table), 138))
    )
    samples = panels.legend(table)
    # A sample is as long as six letters.
    across = min(max(125 // (max(map(len, samples), default=0) + 6), 1), max(len(samples), 1))
    at_title, at_setting = 0.1, 0.16 + 0.2 * len(title)  # In inches from the top.
    at_legend = at_setting + 0.1 + 0.155 * len(setting)
    head = at_legend + (0.2 * (1 + -(-len(samples) // across)) if samples else 0.0)
    foot = 0.1 + 0.155 * len(note)
    height = head + foot + panels.height(table, across=len(grid[0])) * len(grid)
    figure = figures.Figure(figsize=(WIDTH, height), layout="constrained")
    left = 0.1 / WIDTH
    small: Any = {"size": 9, "color": "0.35"}
    figure.text(left, 1 - at_title / height, "\n".join(title), va="top", size=12, weight="bold")
    figure.text(left, 1 - at_setting / height, "\n".join(setting), va="top", **small)
    figure.text(left, 0.06 / height, "\n".join(note), va="bottom", **small)
    if samples:
        figure.legend(
            [*samples.values()], [*samples], title=table["axes"][0], alignment="left",
            loc="upper left", bbox_to_anchor=(left, 1 - at_legend / height), ncols=across,
            borderaxespad=0, borderpad=0,
        )  # fmt: skip
    body = (0.0, foot / height, 1.0, 1 - (head + foot) / height)
    figure.set_layout_engine("constrained", rect=body, h_pad=0.08, w_pad=0.1, wspace=0.02)
    places = figure.subplots(len(grid), len(grid[0]), squeeze=False)
    for axes, panel in zip(places.flat, (panel for row in grid for panel in row), strict=True):
        if panel is None:
            axes.set_axis_off()
        else:
            fill(axes, table, panel)
    return figure


def _note(table: Table) -> str:
    """What the error bars and the marks are, and how many runs are missing."""
    kind, cells = table["figure"]["kind"], table["cells"]
    notes = [tables.spread_of(table, "± is" if kind == "heatmap" else "Error bars are")]
    if kind == "bars":
        notes.append("Dots are single seeds.")
    if kind == "bars" and panels.any_broken(table):
        notes.append("Broken bars do not start at zero.")
    if kind == "heatmap" and any(cell["mean"] is None for cell in cells):
        notes.append("Hatched cells have not run yet.")
    if any(cell["paper"] is not None for cell in cells):
        notes.append(tables.PAPER)
    return " ".join(filter(None, [*notes, tables.state_of(table)]))

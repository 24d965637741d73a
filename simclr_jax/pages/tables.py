r"""A sweep's results as a Markdown table, with the paper's numbers beside them.

A table is what a sweep's table.json holds, a dict of

- title, setting: What is studied, and in one or two sentences on what.
- axes: The names of the rows' and the columns' axis.
- rows, columns: Their labels in order, each a string or a number.
- measures: {name: {label, metric, percent}}. Values are stored as measured, and shown times 100
  where percent is true.
- cells: A list of {point, row, column, measure, values (by seed), mean, std (of the sample; None
  with fewer than two values), paper (the paper's number in the unit that is shown, or None)}. A
  combination without a cell is no part of the study; one without values has not run yet.
- figure: {kind (heatmap, lines, bars, none), row_mean}. With row_mean, the rows' means are shown
  after the last column.
- missing: The names of the runs that are not complete.
- failed: {name of a run: what it said, in one line}.
"""

import re
import statistics
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

Table = Mapping[str, Any]
Label = str | float
MEAN = "mean"  # The label of the column of the rows' means.
PENDING, NO_PART = "…", "—"  # What has not run yet, and what is no part of the study.
PAPER = "The paper's numbers are those of its own setting."
_WORDS = {"top1": "top-1 accuracy", "top5": "top-5 accuracy"}
_NARROW = 4  # The most columns whose cells have the paper's number in the same line.


class Shown(NamedTuple):
    """What is shown of a row and a column, in the unit of the measure.

    Attributes:
      mean: The mean over seeds; None: not run yet.
      spread: The sample standard deviation over seeds; None: fewer than two values.
      values: The values by seed.
      paper: The paper's number; None: it has none.
    """

    mean: float | None
    spread: float | None
    values: dict[str, float]
    paper: float | None


def shown(table: Table, measure: str) -> dict[tuple[Label, Label], Shown]:
    """{(row, column): what is shown} of a measure, without what is no part of the study.

    With row_mean, the column `MEAN` has the mean over a row's cells once all of them have run. Its
    spread is that of the means by seed, if the cells have the same seeds.
    """
    scale = 100.0 if table["measures"][measure]["percent"] else 1.0
    found: dict[tuple[Label, Label], Shown] = {}
    for cell in table["cells"]:
        if cell["measure"] == measure:
            mean, spread = (x if x is None else scale * x for x in (cell["mean"], cell["std"]))
            values = {seed: scale * value for seed, value in cell["values"].items()}
            found[cell["row"], cell["column"]] = Shown(mean, spread, values, cell["paper"])
    for row in table["rows"] if table["figure"]["row_mean"] else ():
        cells = [found[row, column] for column in table["columns"] if (row, column) in found]
        if cells:
            found[row, MEAN] = _mean_of(cells)
    return found


def _mean_of(cells: Sequence[Shown]) -> Shown:
    alike = all(cell.values.keys() == cells[0].values.keys() for cell in cells)
    values = {
        seed: statistics.fmean(cell.values[seed] for cell in cells)
        for seed in (cells[0].values if alike else ())
    }
    means = [cell.mean for cell in cells if cell.mean is not None]
    papers = [cell.paper for cell in cells if cell.paper is not None]
    return Shown(
        statistics.fmean(means) if len(means) == len(cells) else None,
        statistics.stdev(values.values()) if len(values) > 1 else None,
        values,
        statistics.fmean(papers) if len(papers) == len(cells) else None,
    )


def columns(table: Table) -> list[Label]:
    """The labels of the columns, with `MEAN` where the rows' means are shown."""
    return [*table["columns"], *([MEAN] if table["figure"]["row_mean"] else [])]


def text(label: Label) -> str:
    """A label as it is printed.

    >>> text(256.0), text(0.05), text("crop")
    ('256', '0.05', 'crop')
    """
    return label if isinstance(label, str) else f"{label:.10g}"


def unit(table: Table, measure: str) -> str:
    """The words of a measure's metric, with its unit.

    >>> unit({"measures": {"h": {"metric": "top1", "percent": True}}}, "h")
    'top-1 accuracy (%)'
    """
    about = table["measures"][measure]
    words = _WORDS.get(about["metric"], about["metric"].replace("_", " "))
    return f"{words} (%)" if about["percent"] else words


def decimals(table: Table, measure: str) -> int:
    """The number of decimals of a measure: 1 of percents, else so many that three digits show."""
    if table["measures"][measure]["percent"]:
        return 1
    largest = max((abs(cell.mean or 0.0) for cell in shown(table, measure).values()), default=0.0)
    return sum(largest < bound for bound in (100, 10, 1))


def paper_text(table: Table, measure: str, number: float) -> str:
    """A number of the paper as it is printed."""
    return f"{number:.1f}" if table["measures"][measure]["percent"] else f"{number:g}"


def spread_of(table: Table, subject: str = "± is") -> str:
    """A sentence on what ± is, or another subject with its verb, and of how many seeds."""
    counts = {len(cell["values"]) for cell in table["cells"]} - {0}
    if not counts:
        return "Nothing has run yet."
    if max(counts) == 1:
        return "One seed, so the spread is unknown."
    seeds = f"{max(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return f"{subject} the sample standard deviation over {seeds} seeds."


def state_of(table: Table) -> str:
    """A sentence on how many runs are missing, and how many of them failed; empty if none."""
    missing, failed = {*table["missing"], *table["failed"]}, len(table["failed"])
    of_them = f", of which {failed} failed" if failed else ""
    return f"Runs missing: {len(missing)}{of_them}." if missing else ""


def markdown(table: Table) -> str:
    r"""A page of Markdown with the table, as GitHub and MyST show it.

    Several measures of a row and a column lie in columns side by side, or in rows if there are
    more columns than measures.

    >>> cell = {"row": "MLP", "column": 128, "measure": "h", "paper": None}
    >>> print(markdown({
    ...     "title": "Heads", "setting": "Digits.", "axes": ["head", "dimension"],
    ...     "rows": ["MLP"], "columns": [128], "missing": [], "failed": {},
    ...     "measures": {"h": {"label": "linear, h", "metric": "top1", "percent": True}},
    ...     "cells": [{**cell, "values": {"0": 0.63, "1": 0.64}, "mean": 0.635, "std": 0.0071}],
    ...     "figure": {"kind": "none", "row_mean": False},
    ... }))
    # Heads
    <BLANKLINE>
    Digits.
    <BLANKLINE>
    | head ↓ dimension → |        128 |
    | :----------------- | ---------: |
    | MLP                | 63.5 ± 0.7 |
    <BLANKLINE>
    linear, h: top-1 accuracy (%). ± is the sample standard deviation over 2 seeds.
    <BLANKLINE>

    Args:
      table: The sweep's results, as the module describes them.
    """
    measures = table["measures"]
    meaning = "; ".join(
        f"{about['label']}: {unit(table, name)}" for name, about in measures.items()
    )
    notes = [f"{meaning}.", spread_of(table)]
    grid = _grid(table)
    for mark, words in ((PENDING, "has not run yet"), (NO_PART, "is no part of the study")):
        if any(cell.startswith(mark) for row in grid for cell in row[1:]):
            notes.append(f"{mark} {words}.")
    if any(cell["paper"] is not None for cell in table["cells"]):
        notes.append(PAPER)
    notes.append(state_of(table))
    failed = [f"- {escaped(name)}: {escaped(line)}" for name, line in table["failed"].items()]
    parts = [
        f"# {escaped(table['title'])}",
        escaped(table["setting"]),
        _aligned(grid),
        escaped(" ".join(filter(None, notes))),
        "\n".join(["Failed:", "", *failed]) if failed else "",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _grid(table: Table) -> list[list[str]]:
    """The table's text, its head included."""
    measures = list(table["measures"])
    side_by_side = len(measures) >= len(columns(table))
    across = list(product(columns(table), measures if side_by_side else [""]))
    down = product(table["rows"], [""] if side_by_side else measures)
    contents = {name: shown(table, name) for name in measures}

    def named(label: Label, measure: str) -> str:
        shows = measure and (len(measures) > 1 or not text(label))
        of = table["measures"][measure]["label"] if shows else ""
        return escaped(", ".join(filter(None, (text(label), of))))

    def content(row: Label, column: Label, measure: str) -> str:
        found = contents[measure].get((row, column))
        return _cell(table, measure, found, narrow=len(across) <= _NARROW)

    first, second = map(escaped, table["axes"])
    corner = f"{first} ↓ {second} →" if second else first
    grid = [[corner, *(named(*key) for key in across)]]
    for row, of_row in down:
        cells = [content(row, column, of_row or of_column) for column, of_column in across]
        grid.append([named(row, of_row), *cells])
    return grid


def _cell(table: Table, measure: str, found: Shown | None, *, narrow: bool) -> str:
    if found is None:
        return NO_PART
    digits = decimals(table, measure)
    ours = PENDING if found.mean is None else f"{found.mean:.{digits}f}"
    if found.spread is not None:
        ours += f" ± {found.spread:.{digits}f}"
    if found.paper is None:
        return ours
    paper = f"paper {paper_text(table, measure, found.paper)}"
    return f"{ours} ({paper})" if narrow else f"{ours}<br>{paper}"


def _aligned(grid: Sequence[Sequence[str]]) -> str:
    """The lines of a Markdown table, whose first column is of words and the others of numbers."""
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    rows = [
        [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        for row in grid
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])


def escaped(words: str) -> str:
    """Plain text in one line of Markdown, also inside a table."""
    return re.sub(r"([\\|*<`\[\]])", r"\\\1", " ".join(words.split()))

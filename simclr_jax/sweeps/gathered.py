"""The table of a sweep: what is measured of all points, over the seeds, beside the paper's."""

import statistics
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from simclr_jax.config.default_sweep import in_order
from simclr_jax.sweeps import measured
from simclr_jax.sweeps.points import Point

Table = dict[str, Any]  # The content of table.json.


def gather(sweep: ConfigDict, points: Sequence[Point]) -> Table:
    """The table of a sweep.

    Args:
      sweep: The config of the sweep.
      points: Its points, from `points.expand`.

    Returns:
      "title", "size", "setting" and "axes" of the sweep; the labels of the "rows" and "columns";
      "measures", {name: {"label", "metric", "percent"}}; "cells", one a point and measure: its
      "row" and "column", "values" by seed, their "mean" and sample standard deviation "std" (None
      without two values), and "paper", the paper's number or None; the "figure"'s kind; the names
      of the "missing" points, and the "failed" ones with the reason.
    """
    taken = {point.index: measured.values(point) for point in points}
    cells = []
    for name in in_order(sweep.points):
        same = [point for point in points if point.of == name]
        for measure in same[0].measures:
            values = {
                str(point.seed): taken[point.index][measure]
                for point in same
                if measure in taken[point.index]
            }
            cells.append(
                {
                    "point": name,
                    "row": same[0].at[0],
                    "column": same[0].at[1],
                    "measure": measure,
                    "values": values,
                    "mean": statistics.fmean(values.values()) if values else None,
                    "std": statistics.stdev(values.values()) if len(values) > 1 else None,
                    "paper": sweep.points[name].paper.get(measure),
                }
            )
    failures = {point.name: measured.failure(point) for point in points}
    return {
        **{key: sweep[key] for key in ("title", "size", "setting")},
        "axes": list(sweep.axes),
        "rows": _distinct(points, 0),
        "columns": _distinct(points, 1),
        "measures": {
            name: {key: sweep.measures[name][key] for key in ("label", "metric", "percent")}
            for name in in_order(sweep.measures)
        },
        "cells": cells,
        "figure": sweep.figure.to_dict(),
        "missing": [point.name for point in points if not measured.is_done(point)],
        "failed": {name: line for name, line in failures.items() if line},
    }


def _distinct(points: Sequence[Point], axis: int) -> list[Any]:
    """The labels of an axis of the table: numbers ascend, others are in the order of the points.

    Points without measures have no place in the table.
    """
    labels = list(dict.fromkeys(point.at[axis] for point in points if point.measures))
    return labels if any(isinstance(label, str) for label in labels) else sorted(labels)

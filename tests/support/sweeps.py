"""Tables of sweeps, as table.json holds them."""

import statistics


def cell(row, column, values=(), *, measure="h", paper=None):
    """A cell whose values are those of seeds 0, 1 and so on."""
    return {
        "point": f"{row}-{column}",
        "row": row,
        "column": column,
        "measure": measure,
        "values": {str(seed): value for seed, value in enumerate(values)},
        "mean": statistics.fmean(values) if values else None,
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "paper": paper,
    }


def measure(label="h", *, metric="top1", percent=True):
    return {"label": label, "metric": metric, "percent": percent}


def table(cells, *, kind="lines", row_mean=False, measures=None, **changed):
    """A table of cells, with the rows and columns that they name."""
    return {
        "title": "Fig. 8: heads",
        "size": "small",
        "setting": "ResNet-10 on digits.",
        "axes": ["head", "dimension"],
        "rows": list(dict.fromkeys(cell["row"] for cell in cells)),
        "columns": list(dict.fromkeys(cell["column"] for cell in cells)),
        "measures": measures or {"h": measure()},
        "cells": cells,
        "figure": {"kind": kind, "row_mean": row_mean},
        "missing": [],
        "failed": {},
        **changed,
    }

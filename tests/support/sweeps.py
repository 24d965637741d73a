"""Sweeps: their tables, as table.json holds them, and a study with its points."""

import json
import statistics

from ml_collections import ConfigDict

from simclr_jax.config import default_sweep, overrides, shipped
from simclr_jax.sweeps import measured
from simclr_jax.sweeps.points import expand


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


def study(*, seeds=(0,), tiny=()):
    """A sweep of three points on digits: two temperatures, and a run that starts from the first.

    Args:
      seeds: The seeds.
      tiny: Further keys of all runs, by dotted key.
    """
    c = default_sweep.get_config("small")
    c.title, c.setting, c.axes, c.seeds = "A study", "Digits.", ("temperature", "start"), seeds
    c.run = ConfigDict(overrides.changed(shipped.load("digits"), dict(tiny)).to_dict())
    default_sweep.add_measure(c, "knn", "top1", protocol="knn", keys={"knn.k": 20})
    default_sweep.add_measure(c, "entropy", "contrastive_entropy", percent=False)
    for name, temperature, paper in ("hot", 0.5, {"knn": 60.7}), ("cold", 0.1, {}):
        run = {"loss.temperature": temperature}
        default_sweep.add_point(c, name, at=(temperature, "random"), run=run, paper=paper)
    run = {"init.run": "point:hot"}
    default_sweep.add_point(c, "on", at=(0.1, "hot"), run=run, measures=("knn",))
    return c


def points(root, **arguments):
    """The points of `study` in a folder."""
    return expand(study(**arguments), root, devices=1)


def finish(point, **values):
    """Makes a point as if its run and some measures were done."""
    point.folder.mkdir(parents=True, exist_ok=True)
    rows = [{"step": 1, "epoch": 0.5, "loss": 2.0, "images_per_second": 100.0}]
    (point.folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    measured.finish_run(point)
    for name, value in values.items():
        measured.add(point, name, value)

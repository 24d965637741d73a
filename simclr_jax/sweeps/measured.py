"""What has been measured of a point: SWEEP/points/NAME/measured.json, written after each measure.

{"run": the keys that the run's numbers depend on, "images_per_second": its median rate,
 "measures": {name: {"of": the keys of the measure, "value": its value}}}
"""

import math
import statistics
import time
from typing import Any

from ml_collections import ConfigDict

from simclr_jax.errors import DivergedError, UserError
from simclr_jax.evals import results
from simclr_jax.store import files
from simclr_jax.store.rows import UNTIMED, Row, read_rows
from simclr_jax.sweeps.points import Point

FILE = "measured.json"
FAILED = "failed.json"  # {"error": the line that says why the point has failed, "at": when, in s}


def read(point: Point) -> dict[str, Any]:
    """What is measured of a point so far; without a finished run of this config it is nothing."""
    found = results.read(point.folder / FILE) or {}
    return found if results.same(point.computes, found.get("run")) else {}


def values(point: Point) -> dict[str, float]:
    """The values of the measures that are taken of a point, as their configs are now."""
    taken = read(point).get("measures", {})
    return {
        name: taken[name]["value"]
        for name, measure in point.measures.items()
        if name in taken and results.same(_of(measure), taken[name]["of"])
    }


def is_done(point: Point) -> bool:
    """Whether a point's run is finished and all its measures are taken."""
    return bool(read(point)) and {*values(point)} == {*point.measures}


def finish_run(point: Point) -> None:
    """Notes that the run of a point is finished, with its rate."""
    rates = [row["images_per_second"] for row in _rows(point) if row.get("images_per_second")]
    found = {
        "run": point.computes,
        "images_per_second": statistics.median(rates) if rates else None,
        "measures": read(point).get("measures", {}),
    }
    files.write_json(point.folder / FILE, found)


def add(point: Point, name: str, value: float) -> None:
    """Notes the value of a measure."""
    found = read(point)
    found["measures"][name] = {"of": _of(point.measures[name]), "value": value}
    files.write_json(point.folder / FILE, found)


def fail(point: Point, line: str) -> None:
    """Notes why a point has failed."""
    point.folder.mkdir(parents=True, exist_ok=True)
    files.write_json(point.folder / FAILED, {"error": line, "at": time.time()})


def forget_failure(point: Point) -> None:
    """Forgets that a point has failed, before it is tried again."""
    (point.folder / FAILED).unlink(missing_ok=True)


def failure(point: Point) -> str | None:
    """Why a point has failed when it was last run; None: it has not."""
    return None if is_done(point) else (results.read(point.folder / FAILED) or {}).get("error")


def failed_at(point: Point) -> float | None:
    """When a point has failed, in seconds since 1970; None: it has not."""
    return (results.read(point.folder / FAILED) or {}).get("at")


def of_run(point: Point, metric: str, name: str) -> float:
    """A metric of a point's run: its mean over the rows of the last epoch.

    Args:
      point: The point, whose run is finished.
      metric: The metric.
      name: The name of the measure, for the error.

    Raises:
      UserError: The rows do not have it.
      DivergedError: It is not finite, which a row has as None.
    """
    rows = _rows(point)
    last = [row[metric] for row in rows if row["epoch"] > rows[-1]["epoch"] - 1 and metric in row]
    if metric in UNTIMED:  # A row of which no step was timed does not have them.
        last = [value for value in last if value is not None]
    if not last:
        known = sorted({key for row in rows for key in row if row[key] is not None})
        raise _unknown(name, metric, known)
    return _finite(statistics.fmean(math.nan if each is None else each for each in last), name)


def of_result(result: results.Result, metric: str, name: str) -> float:
    """A metric of the result of an evaluation.

    Raises:
      UserError: The result does not have it, or it is no number.
      DivergedError: It is not finite.
    """
    value = result.get(metric)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        known = [key for key in result if isinstance(result[key], float)]
        raise _unknown(name, metric, known)
    return _finite(float(value), name)


def _finite(value: float, name: str) -> float:
    if not math.isfinite(value):
        raise DivergedError(f"measure {name}: is {value}")
    return value


def _unknown(name: str, metric: str, known: list[str]) -> UserError:
    allowed = f"one of {', '.join(known)}"
    return UserError(f"config.measures.{name}.metric={metric!r}: must be {allowed}")


def _rows(point: Point) -> list[Row]:
    return read_rows(point.folder / "metrics.jsonl")


def _of(measure: ConfigDict) -> dict[str, Any]:
    """What a measure depends on, by name; not what the table calls it."""
    return {
        "metric": measure.metric,
        "eval": measure.eval.to_dict(),
        "untrained": measure.untrained,
    }

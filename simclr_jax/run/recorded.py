"""What a run has recorded of some steps, and its comparison with the same steps computed again."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from simclr_jax import mesh as meshes
from simclr_jax.config import parts, record, same_run
from simclr_jax.config.overrides import get
from simclr_jax.errors import DifferenceError, UserError
from simclr_jax.store import digests
from simclr_jax.store.rows import Row

ROUNDING = 3e-6  # The smallest floor, a relative difference; a smaller measured one is luck.
ALLOWED = 10.0  # The largest difference that passes for rounding, as a multiple of the floor.
_TIMES = {"images_per_second", "input_wait"}  # The keys of a row that are measured, not computed.
# Keys that may change in a run, and that its rows depend on all the same.
_OF_ROWS = ("eval.batch_size", "eval.knn_images", "log.every_steps")
_COUNTS = (
    "accuracy",
    "agreement",
    "top1",
)  # The ends of keys whose values jump where one image is counted.

Array = np.ndarray


class Again:
    """The rows and the arrays of steps that were computed again.

    Attributes:
      rows: The rows, ascending.
      arrays: The arrays of each checkpoint by its step and by their path.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.arrays: dict[int, dict[str, Array]] = {}

    def keep_row(self, row: Row) -> None:
        """Keeps a row."""
        self.rows.append(row)

    def keep_state(self, step: int, items: dict[str, Any]) -> None:
        """Keeps the arrays of a checkpoint, given as the trees of its items."""
        self.arrays[step] = by_path(items)


class Recorded:
    """The rows and the digests of checkpoints that a run has recorded.

    Args:
      rows: The rows of metrics.jsonl, of the steps that are compared.
      checkpoints: The digests of the arrays of each checkpoint, by its step and by their path.
    """

    def __init__(self, rows: list[Row], checkpoints: dict[int, dict[str, Any]]):
        self.checkpoints = checkpoints
        self._rows: dict[int, list[Row]] = defaultdict(list)
        for row in rows:
            self._rows[row["step"]].append(row)

    def evaluated(self) -> set[int]:
        """The steps whose rows have an evaluation."""
        return {step for step, rows in self._rows.items() if "eval_loss" in rows[0]}

    def measured(self) -> set[int]:
        """The steps whose rows have what is measured every so many steps."""
        return {step for step, rows in self._rows.items() if "param_norm" in rows[0]}

    def has(self, key: str) -> bool:
        """Whether any row has a key, which rows of an older version may lack."""
        return any(key in row for rows in self._rows.values() for row in rows)

    def logged(self) -> set[int]:
        """The steps that have a row."""
        return {*self._rows}

    def check_row(self, row: Row) -> None:
        """Compares a row that was computed again, to the bit.

        Raises:
          DifferenceError: Another row is recorded, or none.
        """
        recorded = self._row(row["step"])
        for key in [*row, *(recorded.keys() - row.keys())]:
            same = recorded.get(key, "missing") == row.get(key, "missing")
            if key not in _TIMES and not same:
                raise _other(row, key, recorded)

    def check_state(self, step: int, items: dict[str, Any]) -> None:
        """Compares the arrays of a checkpoint that were computed again, by their digests.

        Raises:
          DifferenceError: Other arrays were saved.
        """
        recorded, found = self.checkpoints[step], digests.of_arrays(items)
        other = [path for path in found if found[path] != recorded.get(path)]
        other += recorded.keys() - found.keys()
        if other:
            raise DifferenceError(
                f"checkpoint {step}: {other[0]} is not what its steps lead to, nor are "
                f"{len(other) - 1} more of its {len(recorded)} arrays"
            )

    def is_equal(self, again: Again) -> bool:
        """Whether all was recorded to the bit as it was computed again."""
        try:
            for row in again.rows:
                self.check_row(row)
            for step, arrays in again.arrays.items():
                self.check_state(step, arrays)
        except DifferenceError:
            return False
        return True

    def check_to_rounding(
        self, again: Again, reordered: Again, saved: dict[int, dict[str, Array]]
    ) -> set[str]:
        """Compares all that was computed again to rounding.

        Args:
          again: What was computed again.
          reordered: The same, with the images of each batch in another order. How far it is from
            `again` is what rounding has made of these steps.
          saved: The arrays of the recorded checkpoints by their step and by their path.

        Returns:
          The keys that are not compared, since no recorded row has them, or no other one has:
          another version may have other keys.

        Raises:
          DifferenceError: The first row or array that differs by more than `ALLOWED` times that, or
            the first row that lacks a number.
        """
        rows = {row["step"]: self._row(row["step"]) for row in again.rows}
        alone = set().union(*rows.values()) ^ set().union(*again.rows)
        floor: dict[str, float] = defaultdict(lambda: ROUNDING)
        scale = {
            key: max(abs(row[key] or 0) for row in again.rows if key in row) or 1.0
            for key in {key for row in again.rows for key in row}
        }
        for row, other in zip(again.rows, reordered.rows, strict=True):
            recorded = rows[row["step"]]
            for key in sorted((row.keys() ^ recorded.keys()) - alone - _TIMES):
                raise _other(row, key, recorded)
            for key in row.keys() & recorded.keys() - _TIMES:
                if key.endswith(_COUNTS):
                    continue
                a, b, c = (np.nan if r[key] is None else r[key] for r in (recorded, row, other))
                floor[key] = np.nanmax([floor[key], abs(b - c) / scale[key]])
                far = abs(a - b) / scale[key]
                if not (far <= ALLOWED * floor[key] or (np.isnan(a) and np.isnan(b))):
                    raise DifferenceError(
                        f"step {row['step']}: {key} is {a} in metrics.jsonl, and {b} computed "
                        f"again; rounding would make {ALLOWED * floor[key] * scale[key]:.1e}"
                    )
        for step, arrays in again.arrays.items():
            worst = max(_far(array, reordered.arrays[step][path]) for path, array in arrays.items())
            allowed = ALLOWED * max(ROUNDING, worst)
            for path, array in arrays.items():
                far = _far(saved[step][path], array)
                if not far <= allowed:
                    raise DifferenceError(
                        f"checkpoint {step}: {path} differs by {far:.1e} from what its steps lead "
                        f"to; rounding would make {allowed:.1e}"
                    )
        return alone - _TIMES

    def _row(self, step: int) -> Row:
        """The recorded row of a step."""
        rows = self._rows.get(step, [])
        if len(rows) != 1:
            raise DifferenceError(
                f"step {step}: metrics.jsonl has {len(rows) or 'no'} row{'s' * (len(rows) > 1)}, "
                "and one computed again"
            )
        return rows[0]


def _other(row: Row, key: str, recorded: Row) -> DifferenceError:
    """The error for a number of a row that was computed again and is recorded otherwise."""
    a, b = recorded.get(key, "missing"), row.get(key, "missing")
    return DifferenceError(
        f"step {row['step']}: {key} is {a} in metrics.jsonl, and {b} computed again"
    )


def check_one_config(config: ConfigDict, saved: Mapping[int, dict[str, Any]]) -> None:
    """Checks that a run had one config in the steps to compare.

    Args:
      config: The config of the last of them.
      saved: The descriptions of the run in the checkpoints among them, by step.

    Raises:
      UserError: The run went on after one of them with other values of keys that rows follow.
    """
    for step in sorted(saved, reverse=True):
        before = record.from_json(saved[step])
        changed = same_run.check(config, before, "", allow_change=True)
        changed += [key for key in _OF_ROWS if get(config, key) != get(before, key)]
        if changed:
            raise UserError(
                f"--steps: after checkpoint {step} the run went on with other values of "
                f"{', '.join(f'config.{key}' for key in changed)}; check the steps up to "
                f"{step} and those after it one after the other"
            )


def by_path(items: Any) -> dict[str, Array]:
    """The arrays of a tree by their path, on the host."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): meshes.on_host(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(items)
    }


@dataclass(frozen=True, kw_only=True)
class AsRecorded(parts.Intervals):
    """The intervals of a replay: what is recorded is computed again, and what was due then."""

    recorded: Recorded

    def evaluates(self, step: int) -> bool:
        return step in self.recorded.evaluated()

    def measures(self, step: int) -> bool:
        return step in self.recorded.measured()

    def saves(self, step: int) -> bool:
        return step == self.total or step in self.recorded.checkpoints

    def logs(self, step: int) -> bool:
        return super().logs(step) or step in self.recorded.logged()


def _far(expected: Array, found: Array) -> float:
    """The difference of two arrays relative to the first, in the L2 norm."""
    a, b = expected.astype(np.float64), found.astype(np.float64)
    return float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(a)), 1e-30)

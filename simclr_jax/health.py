"""The health of a run, read from its rows: numbers that are not finite, a loss that does not move,
embeddings that have become one.
"""

import json
import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Any

from etils import epath

from simclr_jax.errors import DivergedError
from simclr_jax.metrics import Row, as_json

WINDOW = 20  # rows over which a loss or an embedding must look ill
STUCK = 0.97  # of the loss at the start
COLLAPSED_SIMILARITY = 0.99
COLLAPSED_RANK = 1.5

_log = logging.getLogger(__name__)


class Health:
    """Looks at every step's row.

    Args:
      start_loss: the contrastive loss of embeddings that know nothing, 2·log(2B - 1).
      patience: steps before a loss that has not moved, or collapsed embeddings, are reported.
      allowed: updates that may be skipped because they are not finite; 0: the first one ends it.
      skipped: how many the run has skipped so far.
      record: writes down the images of a step's batch; returns where.
    """

    def __init__(
        self,
        *,
        start_loss: float,
        patience: int,
        allowed: int,
        skipped: int,
        record: Callable[[Row, Row], str],
    ):
        self._start_loss, self._patience = start_loss, patience
        self._allowed, self.skipped = allowed, skipped
        self._record = record
        self._recent: deque[Row] = deque(maxlen=WINDOW)
        self._warned: set[str] = set()

    def check(self, row: Row, *, finite: bool) -> None:
        """Looks at a step's row.

        Args:
          row: of the step, unrounded.
          finite: whether its loss, gradients, and the state after it are.

        Raises:
          DivergedError: it is not finite, and may not be skipped.
        """
        if not finite or not math.isfinite(row.get("eval_loss", 0.0)):
            self._not_finite(row, skippable=not finite)
            return
        self._recent.append(row)
        if row["step"] >= self._patience and len(self._recent) == WINDOW:
            self._look()

    def _not_finite(self, row: Row, *, skippable: bool) -> None:
        last = self._recent[-1] if self._recent else {}
        try:
            where = f"listed in {self._record(row, last)}"
        except Exception as error:  # of many kinds in a bucket; what is wrong comes first
            where = f"not listed ({' '.join(str(error).split())[:200]})"
        keys = [k for k in ("loss", "grad_norm", "eval_loss") if not math.isfinite(row.get(k, 0.0))]
        what = (
            f"{keys[0]} is {row[keys[0]]}" if keys else "the state after the update is not finite"
        )
        at = f"step {row['step']}: {what} at learning rate {row['learning_rate']:.4g}"
        if skippable and self.skipped < self._allowed:
            self.skipped += 1
            _log.warning("%s; update skipped (%d of %d)", at, self.skipped, self._allowed)
            return
        before = (
            f"step {last['step']} had loss {last['loss']:.4g}, grad_norm {last['grad_norm']:.4g}"
            if last
            else "no step of this process before it"
        )
        after = f" after {self.skipped} skipped updates" if self._allowed else ""
        raise DivergedError(
            f"{at}{after}; {before}; the checkpoints before it are kept, and its images are "
            f"{where}. Try a lower optim.lr or a longer optim.warmup_epochs"
        )

    def _look(self) -> None:
        step = self._recent[-1]["step"]
        loss = self._mean("contrastive_loss")
        if self._mean("mean_similarity") > COLLAPSED_SIMILARITY:
            self._warn(
                "collapse",
                f"step {step}: all embeddings have become the same (mean similarity "
                f"{self._mean('mean_similarity'):.3f}); likely optim.lr is too high, or the images "
                "are all alike",
            )
        elif self._mean("effective_rank") < COLLAPSED_RANK:
            self._warn(
                "collapse",
                f"step {step}: the embeddings have collapsed to a line (effective rank "
                f"{self._mean('effective_rank'):.2f}); likely optim.lr is too high, or the images "
                "are all alike",
            )
        if loss > STUCK * self._start_loss:
            self._warn(
                "stuck",
                f"step {step}: the contrastive loss is {loss:.2f}, still that of embeddings that "
                f"know nothing, 2·log(2B - 1) = {self._start_loss:.2f}; likely optim.lr is too low "
                "or too high, or the augmentations leave nothing that two views share",
            )

    def _mean(self, key: str) -> float:
        return sum(row[key] for row in self._recent) / len(self._recent)

    def _warn(self, kind: str, line: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            _log.warning("%s", line)


def write_batch(workdir: epath.Path, row: Row, last: Row, examples: list[dict[str, Any]]) -> str:
    """Writes WORKDIR/nonfinite/<step>.json: the step, the last finite row, and the batch's images.

    Args:
      examples: [{"index", "epoch", "name"}] of the global batch.

    Returns:
      The file's path.
    """
    folder = workdir / "nonfinite"
    folder.mkdir(exist_ok=True)
    path = folder / f"{row['step']}.json"
    content = {"row": as_json(row), "last_finite_row": as_json(last), "examples": examples}
    path.write_text(json.dumps(content, indent=1) + "\n")
    return str(path)

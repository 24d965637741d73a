"""The health of a run, judged by its rows: numbers that are not finite, a loss that does not fall,
embeddings that collapse.
"""

import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import FrozenConfigDict

from simclr_jax.errors import DivergedError
from simclr_jax.store.rows import Row

MIN_PATIENCE = 100  # The fewest steps before the loss and the embeddings are judged.
WINDOW = 20  # The number of rows over whose mean the loss and the embeddings are judged.
STUCK = 0.97  # The fraction of the loss at the start above which a loss counts as stuck.
COLLAPSED_SIMILARITY = 0.99  # The mean cosine similarity above which embeddings have collapsed.
COLLAPSED_RANK = 1.5  # The effective rank below which embeddings have collapsed.
# The number of the 2B views that are not in the denominator of a row of a contrastive loss: the row
# itself, and, decoupled, its positive.
LEFT_OUT = {"nt_xent": 1, "dcl": 2}

_log = logging.getLogger(__name__)


class Warned(NamedTuple):
    """A warning of the health of a run.

    Attributes:
      kind: What it is of, 'stuck' or 'collapse'.
      step: The step at which it was given.
      line: The warning, as a line that begins with the step.
    """

    kind: str
    step: int
    line: str


class Start(NamedTuple):
    """The loss of a network that knows nothing, which a run is expected to leave.

    Attributes:
      key: The key of the loss in a row.
      loss: The loss.
      formula: The loss as a formula.
      what: The outputs that have this loss.
    """

    key: str
    loss: float
    formula: str
    what: str

    @classmethod
    def of_run(cls, config: FrozenConfigDict) -> "Start | None":
        """The start of a run; None where it is not known.

        Args:
          config: The config of the run.
        """
        if config.objective.name == "contrastive":
            return cls.of_pairs(config.loss.name, config.train.batch_size)
        # Without labels a student learns of its teacher, whatever that knows.
        return cls.of_classes(config.data.num_classes) if config.data.num_classes else None

    @classmethod
    def of_pairs(cls, loss: str, batch_size: int) -> "Start | None":
        """The contrastive loss of B images that look all alike; None where it tells nothing.

        A loss of pairs or triplets may be as large where the embeddings are good, if their
        negatives are mined or their margin is wide.

        Args:
          loss: The name of the loss.
          batch_size: The number B of images.
        """
        if loss not in LEFT_OUT:
            return None
        value = 2 * math.log(2 * batch_size - LEFT_OUT[loss])
        what = "embeddings which are all equally similar"
        return cls("contrastive_loss", value, f"2·log(2B - {LEFT_OUT[loss]})", what)

    @classmethod
    def of_classes(cls, count: int) -> "Start":
        """The cross-entropy of C classes of which none is preferred."""
        what = "a classifier which knows nothing"
        return cls("classifier_loss", math.log(count), "log C", what)


class Health:
    """Judges the row of every step, and counts the updates that are skipped.

    Args:
      start: The loss of a network that knows nothing; None: it is not known, and none is stuck.
      patience: The number of steps before a stuck loss or collapsed embeddings are reported.
      allowed: The number of updates that may be skipped because they are not finite; 0: the first
        one ends the run.
      skipped: The number of updates that the run has skipped so far.
      tell: What is told of a stuck loss and of collapsed embeddings; None: the log, a line each.
    """

    def __init__(
        self,
        *,
        start: Start | None,
        patience: int,
        allowed: int,
        skipped: int,
        tell: Callable[[Warned], Any] | None = None,
    ):
        self._start, self._patience = start, patience
        self._allowed, self.skipped = allowed, skipped
        self._tell = tell or (lambda warned: _log.warning("%s", warned.line))
        self._recent: deque[Row] = deque(maxlen=WINDOW)
        self._warned: set[str] = set()

    @classmethod
    def of_run(
        cls,
        config: FrozenConfigDict,
        warmup_steps: int,
        rows: list[Row],
        tell: Callable[[Warned], Any] | None = None,
    ) -> "Health":
        """The health of a run that continues.

        Args:
          config: The config of the run.
          warmup_steps: The number of steps of its warm-up.
          rows: The rows of the run so far.
          tell: See `Health`.
        """
        skips = config.train.on_nonfinite == "skip"
        return cls(
            start=Start.of_run(config),
            patience=max(MIN_PATIENCE, warmup_steps),
            allowed=config.train.max_skipped_updates if skips else 0,
            skipped=max((row.get("skipped_updates", 0) for row in rows), default=0),
            tell=tell,
        )

    @property
    def may_skip(self) -> bool:
        """Whether an update that is not finite may be skipped at all."""
        return self._allowed > 0

    @property
    def last(self) -> Row:
        """The last finite row; empty before the first one."""
        return self._recent[-1] if self._recent else {}

    def judge(self, row: Row, *, finite: bool) -> bool:
        """Judges the row of a step, and warns once of a stuck loss and of collapsed embeddings.

        Args:
          row: The row, unrounded.
          finite: Whether the loss, the gradients and the state after the step are finite.

        Returns:
          Whether the row is finite; if not, the update was skipped, and is counted.

        Raises:
          DivergedError: The row is not finite, and its update may not be skipped.
        """
        if finite and math.isfinite(row.get("eval_loss", 0.0)):
            self._recent.append(row)
            if row["step"] >= self._patience and len(self._recent) == WINDOW:
                self._look()
            return True
        keys = [k for k in ("loss", "grad_norm", "eval_loss") if not math.isfinite(row.get(k, 0.0))]
        what = (
            f"{keys[0]} is {row[keys[0]]}" if keys else "the state after the update is not finite"
        )
        at = f"step {row['step']}: {what} at learning rate {row['learning_rate']:.4g}"
        if finite or self.skipped == self._allowed:
            raise DivergedError(f"{at}{self._history()}")
        self.skipped += 1
        _log.warning("%s; update skipped (%d of %d)", at, self.skipped, self._allowed)
        return False

    def _history(self) -> str:
        """The end of a message about a row that is not finite: what came before it."""
        after = f" after {self.skipped} skipped updates" if self.may_skip else ""
        if not self.last:
            return f"{after}; no step of this process before it"
        return (
            f"{after}; step {self.last['step']} had loss {self.last['loss']:.4g}, "
            f"grad_norm {self.last['grad_norm']:.4g}"
        )

    def _look(self) -> None:
        """Warns where the recent rows show a stuck loss or collapsed embeddings."""
        step = self._recent[-1]["step"]
        self._look_for_collapse(step)
        start = self._start
        if start is None:
            return
        loss = self._mean(start.key)
        if loss > STUCK * start.loss:
            where = "still near" if loss * STUCK < start.loss else "above"
            self._warn(
                "stuck",
                f"step {step}: the {start.key.replace('_', ' ')}, a mean over {self._over()}, is "
                f"{loss:.2f}, {where} {start.formula} = {start.loss:.2f}, that of {start.what}; "
                "likely optim.lr is too low or too high, or the augmentations too strong",
            )

    def _look_for_collapse(self, step: int) -> None:
        """Warns where the embeddings of the recent rows have collapsed, if they have any."""
        if "mean_similarity" not in self._recent[-1]:
            return
        if self._mean("mean_similarity") > COLLAPSED_SIMILARITY:
            self._warn(
                "collapse",
                f"step {step}: all embeddings have become the same (mean similarity "
                f"{self._mean('mean_similarity'):.3f}, over {self._over()}); likely optim.lr is "
                "too high, or the images are all alike",
            )
        elif self._mean("effective_rank") < COLLAPSED_RANK:
            self._warn(
                "collapse",
                f"step {step}: the embeddings have collapsed to a line (effective rank "
                f"{self._mean('effective_rank'):.2f}, a mean over {self._over()}); likely optim.lr "
                "is too high, or the images are all alike",
            )

    def _mean(self, key: str) -> float:
        return sum(row[key] for row in self._recent) / len(self._recent)

    def _over(self) -> str:
        """The steps whose rows a mean is over."""
        first, last = (self._recent[row]["step"] for row in (0, -1))
        some = "" if last - first + 1 == len(self._recent) else f"{len(self._recent)} of "
        return f"{some}steps {first} to {last}"

    def _warn(self, kind: str, line: str) -> None:
        """Tells the first warning of a kind."""
        if kind not in self._warned:
            self._warned.add(kind)
            self._tell(Warned(kind, self._recent[-1]["step"], line))

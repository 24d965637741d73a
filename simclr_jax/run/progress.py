"""What a run says while it trains: its rows, everywhere; the line on the terminal; its speed."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from typing import TextIO

import jax
from etils import epath
from ml_collections import FrozenConfigDict

from simclr_jax import processes
from simclr_jax.config.parts import Schedule
from simclr_jax.state import TrainState
from simclr_jax.store.rows import MetricsFile, Row

_log = logging.getLogger(__name__)


class MetricsLog:
    """Writes each row everywhere: the file, TensorBoard, and the terminal.

    Args:
      workdir: of the run; None writes no files (processes other than the first).
      last_step: of the checkpoint that the run goes on from; 0 at its start.
      total_steps: of the run.
      tensorboard: whether to write WORKDIR/tensorboard.
    """

    def __init__(
        self, workdir: epath.Path | None, *, last_step: int, total_steps: int, tensorboard: bool
    ):
        self._file = self._board = None
        if workdir is not None:
            self._file = MetricsFile(workdir / "metrics.jsonl", last_step=last_step)
            if tensorboard:
                from simclr_jax.store.tensorboard import (
                    Board,  # loads PyTorch, where that is installed
                )

                self._board = Board(workdir / "tensorboard", last_step=last_step)
        self._progress = Progress(sys.stdout, total_steps) if workdir is not None else None

    def write(self, row: Row) -> None:
        if self._file:
            self._file.write(row)
        if self._board:
            self._board.write(row, set(row) - {"step"})
        if self._progress:
            self._progress.show(row)

    def complete(self, row: Row) -> None:
        """Writes the row of the last step again, now that it has been evaluated."""
        if self._file:
            self._file.replace_last(row)
        if self._board:
            self._board.write(row, {"eval_loss", "eval_top1"})
        if self._progress:
            self._progress.show(row)

    def flush(self) -> None:
        """Returns when all rows are in metrics.jsonl."""
        if self._file:
            self._file.flush()

    def close(self) -> None:
        if self._progress:
            self._progress.end()
        if self._file:
            self._file.close()
        if self._board:
            self._board.close()


class Progress:
    """One line that is redrawn on a terminal; a line a row elsewhere, and at evaluations."""

    def __init__(self, stream: TextIO, total_steps: int):
        self._stream = stream
        self._total = total_steps
        self._live = stream.isatty()
        self._started: tuple[int, float] | None = None

    def show(self, row: Row) -> None:
        self._started = self._started or (row["step"], time.monotonic())
        line = progress_line(row, self._total, self._seconds_left(row["step"]))
        if self._live and "eval_loss" not in row:
            self._write(f"\r\x1b[K{line}")
        else:
            self._write(("\r\x1b[K" if self._live else "") + line + "\n")

    def end(self) -> None:
        if self._live:
            self._write("\n")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a terminal or a pipe that is gone ends no run
            self._stream.write(text)
            self._stream.flush()

    def _seconds_left(self, step: int) -> float | None:
        assert self._started is not None
        first, since = self._started
        if step == first:
            return None
        return (time.monotonic() - since) / (step - first) * (self._total - step)


class Count:
    """'embedded 1280/5000, 312 images/s, 12s left': redrawn on a terminal, else now and then."""

    def __init__(self, what: str, total: int, stream: TextIO):
        self._what = what
        self._total = total
        self._stream = stream
        self._live = stream.isatty()
        self._first: tuple[int, float] | None = None
        self._last = self._shown = time.monotonic()
        self.done = 0

    def add(self, count: int) -> None:
        """Counts a batch. The first one, which compiles, only starts the clock."""
        self.done += count
        self._last = time.monotonic()
        self._first = self._first or (self.done, self._last)
        if self.done < self._total and self._last - self._shown >= (0.1 if self._live else 10.0):
            self._show()

    @property
    def per_second(self) -> float | None:
        """Since the first batch; None until there is a second."""
        if self._first is None or self.done == self._first[0]:
            return None
        return (self.done - self._first[0]) / max(self._last - self._first[1], 1e-9)

    def end(self) -> None:
        """Shows where it ended."""
        self._show()
        if self._live:
            self._stream.write("\n")

    def _show(self) -> None:
        parts = [f"{self._what} {self.done}/{self._total}"]
        if self.per_second:
            parts.append(f"{self.per_second:.0f} images/s")
            if self.done < self._total:
                parts.append(f"{_duration((self._total - self.done) / self.per_second)} left")
        line = ", ".join(parts)
        self._stream.write(f"\r\x1b[K{line}" if self._live else f"{line}\n")
        self._stream.flush()
        self._shown = self._last


def progress_line(row: Row, total_steps: int, seconds_left: float | None) -> str:
    """A row for people: step, epoch, loss, accuracies, throughput, time left."""
    parts = [f"step {row['step']}/{total_steps}", f"epoch {row['epoch']:.1f}"]
    parts.append(f"loss {row['contrastive_loss']:.3f}")
    parts.append(f"contrastive {row['contrastive_accuracy']:.1%}")
    if "online_accuracy" in row:
        parts.append(f"online {row['online_accuracy']:.1%}")
    if (row.get("images_per_second") or 0) > 0:
        parts.append(f"{row['images_per_second']:.0f} img/s")
    if seconds_left:
        parts.append(f"{_duration(seconds_left)} left")
    if "eval_loss" in row:
        parts.append(f"eval loss {row['eval_loss']:.3f}")
    if "eval_top1" in row:
        parts.append(f"eval top-1 {row['eval_top1']:.1%}")
    return "  ".join(parts)


def _duration(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}h{minute:02d}m" if hour else f"{minute}m{second:02d}s"


class Throughput:
    """Source images per second between two logged steps, pauses left out."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._steps = 0
        self._paused = 0.0

    def step_done(self) -> None:
        """Counts a finished step. The first one, which compiles, only starts the clock."""
        if self._since is None:
            self._since, self._paused = time.monotonic(), 0.0
        else:
            self._steps += 1

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """What happens inside (evaluation, saving) is not training."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self._paused += time.monotonic() - begin

    def images_per_second(self, batch_size: int) -> float | None:
        """Since the last call; None before a step was timed."""
        if self._since is None or not self._steps:
            return None
        now = time.monotonic()
        rate = self._steps * batch_size / max(now - self._since - self._paused, 1e-9)
        self._since, self._steps, self._paused = now, 0, 0.0
        return rate


def warn_of_the_warmup(schedule: Schedule) -> None:
    """Warns where a run ends inside its warm-up."""
    if schedule.total_steps <= schedule.warmup_steps:
        _log.warning(
            "the run ends after %d steps, inside its warm-up of %d; see optim.warmup_epochs",
            schedule.total_steps,
            schedule.warmup_steps,
        )


def announce(config: FrozenConfigDict, state: TrainState, total_steps: int) -> None:
    """Says what is trained, on which images and devices."""
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params["encoder"]))
    devices = jax.devices()
    processes.say(
        f"{config.data.name}: {config.data.num_examples} images, "
        f"{config.data.num_classes or 'no'} classes; ResNet-{config.model.depth} x"
        f"{config.model.width:g}, "
        f"{count:,} parameters; {total_steps} steps of {config.train.batch_size} images on "
        f"{len(devices)} {devices[0].device_kind}"
    )


def summary(row: Row, total_steps: int, workdir: str) -> str:
    """What the run reached, and what to do with it."""
    if not row:
        return f"done: {workdir} had reached step {total_steps} already"
    reached = [f"contrastive loss {row['contrastive_loss']:.3f}"]
    if "eval_loss" in row:
        reached.append(f"eval loss {row['eval_loss']:.3f}")
    if "eval_top1" in row:
        reached.append(f"eval top-1 {row['eval_top1']:.1%} (online linear classifier)")
    done = f"done: step {total_steps}, {', '.join(reached)}"
    if "eval_top1" not in row:
        return done
    return f"{done}\nnext: simclr-eval --config=configs/eval/linear.py --run={workdir}"

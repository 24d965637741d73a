"""The messages of a run, and its rows in files and on the terminal."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from typing import TextIO

import jax
import numpy as np
from etils import epath, epy
from ml_collections import FrozenConfigDict

from simclr_jax import processes
from simclr_jax.data.readable import Readable
from simclr_jax.run import terminal
from simclr_jax.state import TrainState
from simclr_jax.store.rows import MetricsFile, Row
from simclr_jax.store.tracker import Tracker

with epy.lazy_imports():  # tensorboardX loads PyTorch, where that is installed.
    from simclr_jax.store import tensorboard


class MetricsLog:
    """Writes each row to metrics.jsonl, to TensorBoard, to a tracker and to the terminal.

    Args:
      workdir: The folder of the run; None: nothing is written (processes other than the first).
      last_step: The step of the checkpoint that the run continues from; 0 at its start.
      total_steps: The number of steps of the run.
      board: The event file of TensorBoard; None: there is none.
      tracker: The tracker that gets the rows as well; None: there is none.
    """

    def __init__(
        self,
        workdir: epath.Path | None,
        *,
        last_step: int,
        total_steps: int,
        board: tensorboard.Board | None,
        tracker: Tracker | None = None,
    ):
        self._file, self._board, self._tracker = None, board, tracker
        if workdir is not None:
            self._file = MetricsFile(workdir / "metrics.jsonl", last_step=last_step)
        self._progress = Progress(sys.stdout, total_steps) if workdir is not None else None

    def write(self, row: Row) -> None:
        """Writes the row of a step."""
        if self._file:
            self._file.write(row)
        if self._board:
            self._board.write(row, set(row) - {"step"})
        if self._tracker:
            self._tracker.log(row)
        if self._progress:
            self._progress.show(row)

    def picture(self, tag: str, pixels: np.ndarray, *, step: int) -> None:
        """Shows a picture (H, W, 3) uint8 in TensorBoard."""
        if self._board:
            self._board.write_picture(tag, pixels, step=step)

    def complete(self, row: Row) -> None:
        """Writes the row of the last step again, now that it has been evaluated."""
        if self._file:
            self._file.replace_last(row)
        if self._board:
            self._board.write(row, {key for key in row if key.startswith("eval_")})
        if self._tracker:
            self._tracker.log(row)
        if self._progress:
            self._progress.show(row)

    def flush(self) -> None:
        """Returns when all rows are in metrics.jsonl."""
        if self._file:
            self._file.flush()

    def close(self) -> None:
        """Ends the line on the terminal, and closes the files."""
        if self._progress:
            self._progress.end()
        if self._file:
            self._file.close()
        if self._board:
            self._board.close()
        if self._tracker:
            self._tracker.close()


class Progress:
    """The progress of a run: a bar that is redrawn on a terminal, elsewhere a line per row.

    Args:
      stream: The stream to write to.
      total_steps: The number of steps of the run.
    """

    def __init__(self, stream: TextIO, total_steps: int):
        self._stream = stream
        self._total = total_steps
        self._live = stream.isatty()
        self._started: tuple[int, float] | None = None

    def show(self, row: Row) -> None:
        """Shows a row; one with an evaluation keeps its line on a terminal as well."""
        self._started = self._started or (row["step"], time.monotonic())
        line = progress_line(row, self._total, self._seconds_left(row["step"]))
        if self._live and "eval_loss" not in row:
            self._write(f"\r\x1b[K{terminal.drawn(row['step'] / self._total, line)}")
        else:
            self._write(("\r\x1b[K" if self._live else "") + line + "\n")

    def end(self) -> None:
        """Ends the line on a terminal."""
        if self._live:
            self._write("\n")

    def _write(self, text: str) -> None:
        # A run goes on when its terminal or its pipe is gone.
        with contextlib.suppress(OSError):
            self._stream.write(text)
            self._stream.flush()

    def _seconds_left(self, step: int) -> float | None:
        """The seconds to the end of the run; None at the first row."""
        assert self._started is not None
        first, since = self._started
        if step == first:
            return None
        return (time.monotonic() - since) / (step - first) * (self._total - step)


class Count:
    """The progress of a count, such as 'embedded 1280/5000, 312 images/s, 12s left'.

    The line is redrawn on a terminal, and written every ten seconds elsewhere. Only process 0 does,
    and with --quiet none.

    Args:
      what: The verb that the line begins with.
      total: The number of images to count.
      stream: The stream to write to.

    Attributes:
      done: The number of images counted so far.
    """

    def __init__(self, what: str, total: int, stream: TextIO):
        self._what = what
        self._total = total
        self._stream = stream
        self._live = stream.isatty()
        self._shows = processes.is_primary() and not terminal.is_quiet()
        self._first: tuple[int, float] | None = None
        self._last = self._shown = time.monotonic()
        self.done = 0

    def add(self, count: int) -> None:
        """Counts the images of a batch; the first batch, which compiles, only starts the clock."""
        self.done += count
        self._last = time.monotonic()
        self._first = self._first or (self.done, self._last)
        if self.done < self._total and self._last - self._shown >= (0.1 if self._live else 10.0):
            self._show()

    @property
    def per_second(self) -> float | None:
        """The images per second since the first batch; None before the second one."""
        if self._first is None or self.done == self._first[0]:
            return None
        return (self.done - self._first[0]) / max(self._last - self._first[1], 1e-9)

    def end(self) -> None:
        """Shows the last count, and ends the line on a terminal."""
        self._show()
        if self._live and self._shows:
            self._stream.write("\n")

    def _show(self) -> None:
        if not self._shows:
            return
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
    """A row as a line of text: step, epoch, loss, accuracies, throughput, time left.

    >>> row = {"step": 20, "epoch": 0.5, "contrastive_loss": 9.0, "contrastive_accuracy": 0.25}
    >>> progress_line(row, 400, 75.0)
    'step 20/400  epoch 0.5  contrastive loss 9.000  accuracy 25.0%  1m15s left'
    >>> progress_line({"step": 20, "epoch": 0.5, "loss": 2.0, "train_accuracy": 0.25}, 400, 75.0)
    'step 20/400  epoch 0.5  loss 2.000  accuracy 25.0%  1m15s left'

    Args:
      row: The row.
      total_steps: The number of steps of the run.
      seconds_left: The seconds to the end of the run; None: not known.
    """
    parts = [f"step {row['step']}/{total_steps}", f"epoch {row['epoch']:.1f}"]
    parts.append(_loss_in_words(row))
    accuracy = row.get("contrastive_accuracy", row.get("train_accuracy"))
    if "teacher_agreement" in row:  # Of the labelled images there may be none in a batch.
        parts.append(f"agreement {row['teacher_agreement']:.1%}")
    elif accuracy is not None:
        parts.append(f"accuracy {accuracy:.1%}")
    if "online_accuracy" in row:
        parts.append(f"online {row['online_accuracy']:.1%}")
    if (row.get("images_per_second") or 0) > 0:
        parts.append(f"{row['images_per_second']:.0f} img/s")
    if row.get("input_wait") is not None:
        parts.append(f"{row['input_wait']:.0%} waiting for input")
    if seconds_left:
        parts.append(f"{_duration(seconds_left)} left")
    if "eval_loss" in row:
        parts.append(f"eval loss {row['eval_loss']:.3f}")
    if "eval_top1" in row:
        parts.append(f"eval top-1 {row['eval_top1']:.1%}")
    if "eval_knn" in row:
        parts.append(f"eval kNN {row['eval_knn']:.1%}")
    if "eval_binary_accuracy" in row:
        parts.append(f"eval binary accuracy {row['eval_binary_accuracy']:.1%}")
    if "eval_agreement" in row:
        parts.append(f"eval agreement {row['eval_agreement']:.1%}")
    return "  ".join(parts)


def _loss_in_words(row: Row) -> str:
    """The loss of a row: the contrastive one, or all of it for another objective."""
    if "contrastive_loss" in row:
        return f"contrastive loss {row['contrastive_loss']:.3f}"
    return f"loss {row['loss']:.3f}"


def _duration(seconds: float) -> str:
    """A number of seconds as '1h02m' or '2m03s'."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}h{minute:02d}m" if hour else f"{minute}m{second:02d}s"


def note(line: str) -> None:
    """Writes to stderr, in process 0, what takes a while from now on, or how long."""
    if sys.stderr is not None and processes.is_primary() and not terminal.is_quiet():
        with contextlib.suppress(OSError):  # The terminal may be gone.
            redrawn = "\r\x1b[K" if sys.stderr.isatty() else ""  # A line of `Progress`.
            print(f"{redrawn}{line}", file=sys.stderr, flush=True)


def data_line(train: Readable, evaluation: Readable) -> str:
    """The splits of a run, their numbers of images and the first classes, as text."""
    names = ", ".join(map(repr, train.source.class_names[:5])) if train.num_classes else ""
    more = f" and {train.num_classes - 5} more" if train.num_classes > 5 else ""
    several = ", of which an image can have several" if train.multilabel else ""
    classes = f"{train.num_classes or 'no'} classes{several}" + (
        f": {names}{more}" if names else ""
    )
    unlabelled = " without labels" if train.num_classes and not evaluation.num_classes else ""
    splits = (
        f"{len(train)} images to train on ({train.split}), {len(evaluation)} to evaluate on "
        f"({evaluation.split}{unlabelled})"
    )
    return f"{train.source.place}: {splits}; {classes}"


def announce(config: FrozenConfigDict, state: TrainState, total_steps: int) -> None:
    """Prints what is trained, for how long, and on which devices; `data_line` has the images.

    Args:
      config: The config of the run.
      state: The state, whose parameters are counted.
      total_steps: The number of steps of the run.
    """
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params["encoder"]))
    devices = jax.devices()
    begin = " from new weights" if config.init.run is None else ""
    what = "" if config.objective.name == "contrastive" else f"{config.objective.name}{begin}, "
    processes.say(
        f"ResNet-{config.model.depth} x{config.model.width:g}, {count:,} parameters; "
        f"{what}{total_steps} steps of {config.train.batch_size} images on "
        f"{len(devices)} {devices[0].device_kind}"
    )


def next_protocol(config: FrozenConfigDict, train: Readable) -> str:
    """The evaluation to propose after a run: without labels its images can only be embedded."""
    if train.multilabel:
        return "logistic"
    if not config.data.num_classes:
        return "embed"
    return "linear" if config.objective.name == "contrastive" else "classifier"


def summary(row: Row, total_steps: int, workdir: str, protocol: str) -> str:
    """The last lines of a run: the scores that it reached, and the commands to go on with.

    >>> print(summary({}, 400, "runs/my photos", "embed"))
    done: runs/my photos had reached step 400 already
    next: simclr-eval --config=configs/eval/embed.py --run='runs/my photos'
          simclr-report 'runs/my photos' makes a page: curves, neighbours, a map

    Args:
      row: The last row; empty where no step was trained.
      total_steps: The number of steps of the run.
      workdir: The folder of the run.
      protocol: The evaluation to propose.
    """
    run = shlex.quote(workdir)
    following = (
        f"next: simclr-eval --config=configs/eval/{protocol}.py --run={run}\n"
        f"      simclr-report {run} makes a page: curves, neighbours, a map"
    )
    if not row:
        return f"done: {workdir} had reached step {total_steps} already\n{following}"
    reached = [_loss_in_words(row)]
    if "eval_loss" in row:
        reached.append(f"eval loss {row['eval_loss']:.3f}")
    if "eval_top1" in row:
        online = " (online linear classifier)" if "contrastive_loss" in row else ""
        reached.append(f"eval top-1 {row['eval_top1']:.1%}{online}")
    if "eval_knn" in row:
        reached.append(f"kNN {row['eval_knn']:.1%}")
    if "eval_binary_accuracy" in row:
        reached.append(f"eval binary accuracy {row['eval_binary_accuracy']:.1%}")
    if "eval_agreement" in row:
        reached.append(f"eval agreement with the teacher {row['eval_agreement']:.1%}")
    return f"done: step {total_steps}, {', '.join(reached)}\n{following}"

"""What a run says while it trains: metrics.jsonl, the progress line, throughput."""

import contextlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from typing import IO, Any, TextIO

from etils import epath

from simclr_jax.errors import HostError
from simclr_jax.store import files
from simclr_jax.store.files import GrowingObject, is_remote

Row = dict[str, Any]

_log = logging.getLogger(__name__)


def as_json(row: Row) -> Row:
    """JSON has no NaN and no infinity: those become null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }


class MetricsFile:
    """WORKDIR/metrics.jsonl: one JSON object a logged step, flushed as it is written.

    Opening it drops the rows beyond `last_step` (a run killed after its last checkpoint will write
    them again) and a line that was cut short.
    """

    def __init__(self, path: epath.PathLike, *, last_step: int):
        self._path = epath.Path(path)
        self._open([row for row in read_rows(self._path) if row["step"] <= last_step])

    def _open(self, rows: list[Row]) -> None:
        """Makes `rows` the file's, at no moment leaving it without any, and opens it for more."""
        kept = "".join(json.dumps(as_json(row)) + "\n" for row in rows).encode()
        self._file: IO[bytes] | GrowingObject
        if is_remote(self._path):
            self._file = GrowingObject(self._path, kept)
        else:
            files.write(self._path, kept)
            self._file = self._path.open("ab")

    def write(self, row: Row) -> None:
        self._file.write((json.dumps(as_json(row)) + "\n").encode())
        if not isinstance(self._file, GrowingObject):
            self._file.flush()

    def replace_last(self, row: Row) -> None:
        """Writes a row in place of the last one, of the same step."""
        self.close()
        self._open([*read_rows(self._path)[:-1], row])

    def flush(self) -> None:
        """Returns when all rows are on disk, or in the bucket.

        Raises:
          HostError: somebody has removed the file meanwhile.
        """
        if isinstance(self._file, GrowingObject):
            self._file.flush()
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        try:
            there = os.path.samestat(os.fstat(self._file.fileno()), os.stat(self._path))
        except FileNotFoundError:
            there = False
        if not there:
            raise HostError(f"{self._path}: was removed or replaced while the run wrote it")

    def close(self) -> None:
        self._file.close()


def read_rows(path: epath.PathLike) -> list[Row]:
    """The whole rows of a metrics.jsonl; none where there is no file.

    A line that is no row is left out: with a warning, unless it is the last one, cut short.
    """
    path = epath.Path(path)
    rows: list[Row] = []
    content = path.read_bytes() if path.exists() else b""
    lines = content.splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if _is_row(row):
            rows.append(row)
        elif number < len(lines) or content.endswith(b"\n"):
            _log.warning("%s: line %d is no row of metrics; left out", path, number)
    return rows


def _is_row(value: Any) -> bool:
    """Whether it has a step, and numbers."""
    if not isinstance(value, dict) or not isinstance(value.get("step"), int):
        return False
    return all(number is None or isinstance(number, int | float) for number in value.values())


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
                from simclr_jax.tensorboard import Board  # loads PyTorch, where that is installed

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

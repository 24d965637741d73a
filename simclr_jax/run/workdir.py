"""The folder of a run: made, locked, and written to."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from etils import epath, epy
from ml_collections import FrozenConfigDict

from simclr_jax import processes
from simclr_jax.config import overrides, record, rules, wish
from simclr_jax.config.parts import Intervals
from simclr_jax.errors import FULL_DISK, LOST_DISK, ArgumentError, HostError, UserError
from simclr_jax.run import terminal
from simclr_jax.run.progress import MetricsLog
from simclr_jax.state import TrainState
from simclr_jax.store import checkpoint, lock, outage, tracker
from simclr_jax.store.checkpoint import Checkpoints
from simclr_jax.store.files import check_client, is_remote
from simclr_jax.store.rows import Row

with epy.lazy_imports():  # tensorboardX loads PyTorch, where that is installed.
    from simclr_jax.store import tensorboard


@dataclass(frozen=True)
class Workdir:
    """The folder of a run, and the files that the run writes there.

    Attributes:
      root: The folder.
      record: The description of the run, the content of config.json.
      checkpoints: The checkpoints.
      log: The log of the rows.
      on_save: What else is written with each checkpoint, by all processes together.
    """

    root: epath.Path
    record: dict[str, Any]
    checkpoints: Checkpoints
    log: MetricsLog
    on_save: Callable[[], None] = lambda: None

    def save(self, step: int, state: TrainState, scores: dict[str, float] | None) -> None:
        """Saves a state as a checkpoint, once the rows up to it are on disk.

        Args:
          step: The number of updates that led to the state.
          state: The state.
          scores: The scores of its evaluation; None: it was not evaluated.

        Raises:
          HostError: The rows or the checkpoint cannot be written.
        """
        self.log.flush()
        self.checkpoints.remember(step, scores or {})
        self.checkpoints.save(step, state, self.record)
        self.on_save()


def make(workdir: str) -> epath.Path:
    """Makes the folder of a run unless it exists, and returns its path.

    Raises:
      UserError: The folder cannot be made.
      ArgumentError: The path has characters below which Orbax cannot read checkpoints.
      HostError: The folder is in Google's storage, whose client is not installed.
    """
    root = place(workdir)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in FULL_DISK | LOST_DISK - {errno.EACCES}:
            raise
        raise _cannot_be_made(workdir, error.strerror) from error
    return root


def could_be_made(workdir: str) -> epath.Path:
    """The path of the folder of a run, as `make` would make it, where that seems possible.

    Raises:
      UserError: What is there is no folder, or nothing can be written to it.
      ArgumentError: As `make` raises it.
      HostError: As `make` raises it.
    """
    root = place(workdir)
    there = root
    while not is_remote(root) and not there.exists():
        there = there.parent
    if is_remote(root):
        return root
    if not there.is_dir():
        raise _cannot_be_made(
            workdir, os.strerror(errno.ENOTDIR if there != root else errno.EEXIST)
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise _cannot_be_made(workdir, os.strerror(errno.EACCES))
    return root


def _cannot_be_made(workdir: str, reason: str | None) -> UserError:
    return UserError(f"--workdir={workdir}: cannot be made ({reason}); name a folder to write in")


def place(workdir: str) -> epath.Path:
    """The path of the folder of a run, which need not exist; see `make`."""
    check_client(workdir)
    checkpoint.check_path(workdir, argument="workdir")
    root = epath.Path(workdir).expanduser()
    root = root if is_remote(root) else root.resolve()
    checkpoint.check_path(root, argument="workdir")
    return root


def described(workdir: str | None) -> dict[str, Any] | None:
    """The description of the run in a folder, which need not exist; None where there is none.

    Without a folder there is none.

    Raises:
      UserError: The config.json there is not the description of a run.
      HostError: The folder is in Google's storage, whose client is not installed.
    """
    if workdir is None:
        return None
    check_client(workdir)
    root = epath.Path(workdir).expanduser()
    return record.read(root) if outage.exists(root / "config.json") else None


def begun(config: FrozenConfigDict, workdir: str | None) -> FrozenConfigDict:
    """The config of a run, for one that goes on with what it has chosen when it began.

    Args:
      config: The config, which may leave keys open; see `wish`.
      workdir: The folder of the run, which need not exist.

    Raises:
      UserError: The run has a time to choose by, and nothing to choose.
    """
    stored = described(workdir)
    if stored is not None:
        return wish.kept(config, record.from_json(stored))
    wish.check(config)
    return config


def check_shared(workdir: str | None) -> None:
    """Checks that all processes find the same run in a folder, or none. All must call it together.

    What a run that has begun goes on with is in its config.json. Processes that do not see the same
    one would differ in what they choose, and wait for each other in vain.

    Args:
      workdir: The folder of the run, which need not exist; None: there is none.

    Raises:
      UserError: A process finds another run than process 0, or process 0 finds another one.
    """
    found = json.dumps(described(workdir), sort_keys=True).encode()
    own = [zlib.crc32(found) >> 1, len(found)]
    if not processes.all_have(processes.from_primary(own) == own):
        raise UserError(
            f"--workdir={workdir}: the processes find different runs there; name a folder that all "
            "of them see"
        )


@contextlib.contextmanager
def locked(
    root: epath.Path, by: Callable[[epath.Path], AbstractContextManager[None]] = lock.hold
) -> Iterator[None]:
    """Locks the folder in process 0; where that fails, all processes raise an error.

    Args:
      root: The folder of the run.
      by: The context of the lock, `lock.hold`, or `lock.free` only to see that nobody has it.
    """
    with contextlib.ExitStack() as stack:
        failure: Exception | None = None
        if processes.is_primary():
            try:
                stack.enter_context(by(root))
            except (ArgumentError, HostError) as error:
                failure = error
        if not processes.all_have(failure is None):
            raise failure or UserError(f"--workdir={root}: process 0 cannot lock it")
        yield


@contextlib.contextmanager
def open_checkpoints(
    root: epath.Path, config: FrozenConfigDict, rows: list[Row]
) -> Iterator[Checkpoints]:
    """Opens the checkpoints of a run, whose rows so far tell which of them is the best."""
    checkpoints = Checkpoints(
        root,
        keep=config.checkpoint.keep,
        rows=rows,
    )
    with closing(checkpoints):
        yield checkpoints


@contextlib.contextmanager
def open_log(
    root: epath.Path, config: FrozenConfigDict, intervals: Intervals, step: int
) -> Iterator[MetricsLog]:
    """Opens the log of a run that continues after update `step`; only process 0 writes."""
    log = MetricsLog(
        root if processes.is_primary() else None,
        last_step=step,
        total_steps=intervals.total,
        board=_open_board(root, config, step),
        tracker=_open_tracker(root, config),
    )
    with closing(log):
        yield log


def _open_board(root: epath.Path, config: FrozenConfigDict, step: int) -> tensorboard.Board | None:
    """Opens the event file of a run, which begins with its config; None where there is none."""
    if not config.log.tensorboard or not processes.is_primary():
        return None
    board = tensorboard.Board(root / "tensorboard", last_step=step)
    # Runs are compared by what their numbers depend on, which a resumed run may not change freely.
    compared = {key for key, rule in rules.RUN.items() if rule.on_resume != rules.FREE}
    values = {key: overrides.get(config, key) for key in overrides.keys(config)}
    shown = ("classifier_loss", "eval_loss", "eval_top1")
    if config.objective.name == "contrastive":
        shown = ("contrastive_loss", "eval_loss", "eval_top1")
    elif not config.data.num_classes:
        shown = ("distillation_loss", "eval_loss", "eval_agreement")
    board.describe(values, compared, shown)
    return board


def _open_tracker(root: epath.Path, config: FrozenConfigDict) -> tracker.Tracker | None:
    """Begins or continues the run in the tracker of the config; None where there is none."""
    if config.log.tracker is None or not processes.is_primary():
        return None
    values = {key: overrides.get(config, key) for key in overrides.keys(config)}
    return tracker.Tracker(
        config.log.tracker,
        root,
        project=config.log.tracker_project,
        config=values,
        quiet=terminal.is_quiet(),
    )


@contextlib.contextmanager
def closing(file: Any) -> Iterator[None]:
    """Closes a file when the block ends; an error in closing never hides one in the block."""
    try:
        yield
    finally:
        failing = sys.exc_info()[1] is not None
        try:
            file.close()
        except Exception:
            if not failing:
                raise

"""Saving and restoring, through Orbax. The only file that knows it.

A checkpoint is the folder WORKDIR/checkpoints/<step> with four items: `model` (params and
batch_stats, all that an evaluation needs), `optimizer` (step and opt_state), `config` (as in
config.json) and `digests`: the SHA-256 of each array and of the config, recomputed whenever one is
read, for a flipped bit looks like any other number.
"""

import contextlib
import logging
import math
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from simclr_jax import processes
from simclr_jax.errors import (
    ArgumentError,
    FileError,
    HostError,
    as_host_error,
    one_line,
)
from simclr_jax.state import TrainState
from simclr_jax.store import digests, restore
from simclr_jax.store.digests import DamagedError
from simclr_jax.store.files import is_remote

_log = logging.getLogger(__name__)
_LOGGERS = {"absl": logging.CRITICAL, "orbax": logging.CRITICAL, "asyncio": logging.CRITICAL}


class Checkpoints:
    """A run's checkpoints, as the trainer sees them: saved asynchronously, pruned, restored.

    Args:
      workdir: of the run.
      keep: how many of the latest to keep.
      best: the metric whose best evaluated checkpoint is kept besides: 'eval_top1' (highest) or
        'eval_loss' (lowest).
      rows: of metrics.jsonl so far, which say how the checkpoints at hand were evaluated.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        *,
        keep: int,
        best: str,
        rows: Iterable[Mapping[str, Any]] = (),
    ):
        self._root = epath.Path(workdir)
        self._policy = _LatestAndBest(keep, best)
        for row in rows:
            self.remember(row["step"], row)
        folder = self._root / "checkpoints"
        if folder.exists() and not folder.is_dir():
            raise FileError(f"{folder}: is a file where the checkpoints' folder belongs")
        self._manager = ocp.CheckpointManager(
            folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._policy,
                cleanup_tmp_directories=True,
                lightweight_initialize=True,  # or a damaged one would end it here
            ),
        )

    def remember(self, step: int, scores: Mapping[str, Any]) -> None:
        """Remembers the scores of the state after update `step`, for pruning."""
        self._policy.add(step, scores)

    def save(self, step: int, state: TrainState, config: dict[str, Any]) -> None:
        """Starts saving the state after update `step`; the arrays may be donated on return.

        Args:
          config: what `config.describe` returned.

        Raises:
          HostError: it cannot be written; as from all that follow a save under way.
        """
        arrays = {"model": _model(state), "optimizer": _optimizer(state)}
        with self._writing():
            if not self._manager.save(step, args=_to_save(step, arrays, config)):
                raise RuntimeError(f"checkpoint {step} was not saved: Orbax has a later one")

    def raise_failure(self) -> None:
        """Raises what a save under way has failed with, if it has."""
        with self._writing():
            self._manager.check_for_errors()

    def wait(self) -> None:
        """Returns when the save under way is complete."""
        with self._writing():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            missing = "NOT_FOUND" in str(error)  # as TensorStore says that a folder is gone
            if as_host_error(error) is not error or not (isinstance(error, OSError) or missing):
                raise
            folder, reason = self._root / "checkpoints", one_line(error, 200)
            raise HostError(f"{folder}: cannot be written ({reason})") from error

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def restore_newest(
        self, abstract: TrainState, check: Callable[[dict[str, Any]], None]
    ) -> tuple[int, TrainState] | None:
        """The newest good checkpoint; damaged ones that are newer are set aside, with a message.

        Args:
          abstract: shapes, dtypes and shardings to restore to.
          check: is called with a checkpoint's config before its arrays are read.

        Returns:
          (step, state), or None where there are no checkpoints.

        Raises:
          ArgumentError: there are checkpoints, and none is good.
          FileError: they are another network's.
        """
        wanted = {"model": _model(abstract), "optimizer": _optimizer(abstract)}
        damaged: dict[int, str] = {}
        for step in reversed(self.steps()):
            arrays, reason = None, "another process cannot read it"
            try:
                stored, config = restore.described(self._manager, step)
                check(config)
                arrays = restore.verified(self._manager, step, wanted, stored)
            except DamagedError as error:
                reason = str(error)
            if processes.all_have(arrays is not None):
                assert arrays is not None
                self._set_aside(damaged)
                return step, TrainState(**arrays["model"], **arrays["optimizer"])
            damaged[step] = reason
        if damaged:
            step, reason = next(iter(damaged.items()))
            raise ArgumentError(
                "workdir",
                self._root,
                f"none of its {len(damaged)} checkpoints is good (checkpoint {step}: {reason}); "
                "nothing was changed: put a copy of one back, or begin in another workdir",
            )
        return None

    def _set_aside(self, damaged: dict[int, str]) -> None:
        """Moves damaged checkpoints to WORKDIR/damaged."""
        if not damaged:
            return
        if processes.is_primary():
            (self._root / "damaged").mkdir(exist_ok=True)
            for step, reason in damaged.items():
                target = self._root / "damaged" / str(step)
                again = 2
                while target.exists():
                    target = target.with_name(f"{step}-{again}")
                    again += 1
                _move(self._root / "checkpoints" / str(step), target)
                _log.warning("checkpoint %d is damaged (%s): moved to %s", step, reason, target)
        processes.all_have(True)
        self._manager.reload()

    def close(self) -> None:
        """Waits for a save under way."""
        self.wait()
        self._manager.close()


class Reader:
    """A run's checkpoints, as an evaluation sees them: it cannot write or delete any."""

    def __init__(self, workdir: epath.PathLike):
        self._folder = epath.Path(workdir) / "checkpoints"

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, ascending."""
        if not self._folder.is_dir():
            return []
        return sorted(ocp.utils.checkpoint_steps(self._folder))

    def config(self, step: int) -> dict[str, Any]:
        """What `Checkpoints.save` was given as config.

        Raises:
          FileError: the checkpoint is damaged.
        """
        with self._manager() as manager:
            return self._checked(step, lambda: restore.described(manager, step)[1])

    def model(self, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
        """{"params", "batch_stats"} of a checkpoint, placed as `abstract` says.

        Raises:
          FileError: the checkpoint is damaged, or another network's.
        """

        def read() -> dict[str, Any]:
            stored, _ = restore.described(manager, step)
            return restore.verified(manager, step, {"model": abstract}, stored)["model"]

        with self._manager() as manager:
            return self._checked(step, read)

    def _checked(self, step: int, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except DamagedError as error:
            if step not in self.steps():
                raise FileError(
                    f"{self._folder / str(step)}: is gone: the run has gone on and pruned it"
                ) from error
            raise FileError(
                f"{self._folder / str(step)}: is damaged ({error}); use another checkpoint"
            ) from error

    def _manager(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            read_only=True, create=False, lightweight_initialize=True
        )
        return ocp.CheckpointManager(self._folder, options=options)


class _LatestAndBest:
    """Orbax's preservation policy: the `keep` latest, and the best that was evaluated."""

    def __init__(self, keep: int, best: str):
        self._keep, self._best = keep, best
        self._scores: dict[int, float] = {}

    def add(self, step: int, scores: Mapping[str, Any]) -> None:
        value = scores.get(self._best)
        if value is not None and math.isfinite(value):
            self._scores[step] = value if self._best == "eval_top1" else -value

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        preserved = set(sorted(steps)[-self._keep :])
        scored = [step for step in steps if step in self._scores]
        if scored:
            preserved.add(max(scored, key=self._scores.__getitem__))
        return [step in preserved for step in steps]


def save_model(
    workdir: epath.PathLike, step: int, variables: dict[str, Any], config: dict[str, Any]
) -> None:
    """Saves a network alone, with no optimizer, as the checkpoint `step` of a new run.

    Args:
      variables: {"params", "batch_stats"}.
      config: what `config.describe` returned.
    """
    with ocp.CheckpointManager(epath.Path(workdir) / "checkpoints") as manager:
        manager.save(step, args=_to_save(step, {"model": variables}, config))


def check_path(folder: epath.PathLike, *, argument: str) -> None:
    """Checks that Orbax can read again what it writes below a folder.

    Args:
      folder: The folder, which need not exist.
      argument: What the caller calls the folder.

    Raises:
      ArgumentError: Its path has letters that Orbax reads as a pattern, or that are not UTF-8.
    """
    path = str(folder)
    wrong = " ".join(sorted(set("*?[]\\") & set(path)))  # Orbax looks for its files by a pattern.
    if any("\ud800" <= letter <= "\udfff" for letter in path):
        wrong = "bytes that are not UTF-8"
    if wrong:
        raise ArgumentError(
            argument,
            ascii(path),
            f"no checkpoint can be read below a folder with {wrong} in its path; use one of "
            "another name",
        )


def _move(folder: epath.Path, target: epath.Path) -> None:
    """Also to another disk, where the checkpoints' folder is a link to one."""
    if is_remote(folder):
        folder.rename(target)
    else:
        shutil.move(str(folder), str(target))


def _model(state: TrainState) -> dict[str, Any]:
    return {"params": state.params, "batch_stats": state.batch_stats}


def _optimizer(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, "opt_state": state.opt_state}


def _to_save(step: int, arrays: dict[str, Any], config: dict[str, Any]) -> ocp.args.Composite:
    return ocp.args.Composite(
        **{item: ocp.args.StandardSave(tree) for item, tree in arrays.items()},
        config=ocp.args.JsonSave(config),
        digests=ocp.args.JsonSave(digests.of_checkpoint(step, arrays, config)),
    )


def quiet() -> None:
    """Orbax reports every file it touches; a run's own lines are enough.

    And where one array of a checkpoint cannot be read or written, those of all the others end in a
    traceback each, from threads, after the error that says so.
    """
    for name, level in _LOGGERS.items():
        logging.getLogger(name).setLevel(level)
    report = sys.unraisablehook
    if getattr(report, "without_aftermath", False):
        return

    def hook(unraisable: Any) -> None:
        code = getattr(unraisable.object, "cr_code", None)
        of_orbax = code is not None and "orbax" in code.co_filename
        if not of_orbax and "Event loop is closed" not in str(unraisable.exc_value):
            report(unraisable)

    hook.without_aftermath = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook

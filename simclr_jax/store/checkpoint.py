"""Checkpoints, saved and restored with Orbax.

A checkpoint is the folder WORKDIR/checkpoints/STEP with four items: `model` (params and
batch_stats, all that an evaluation needs), `optimizer` (step and opt_state), `config` (as in
config.json) and `digests`, the SHA-256 of each array and of the config. Digests are checked at
every read: Orbax does not notice a flipped bit.
"""

import contextlib
import logging
import math
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
from etils import epath, epy

from simclr_jax import processes
from simclr_jax.errors import ArgumentError, FileError, HostError, as_host_error, one_line
from simclr_jax.state import TrainState
from simclr_jax.store import digests, outage, restore
from simclr_jax.store.digests import DamagedError
from simclr_jax.store.files import is_remote

with epy.lazy_imports():
    import orbax.checkpoint as ocp
_log = logging.getLogger(__name__)
_LOGGERS = {"absl": logging.CRITICAL, "orbax": logging.CRITICAL, "asyncio": logging.CRITICAL}


class Checkpoints:
    """The checkpoints of a run in training: saved asynchronously, pruned, restored.

    Args:
      workdir: The folder of the run.
      keep: The number of latest checkpoints to keep besides the best one, at least 1.
      rows: The rows of metrics.jsonl so far, with the scores of the checkpoints that exist.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        *,
        keep: int,
        rows: Iterable[Mapping[str, Any]] = (),
    ):
        self._root = epath.Path(workdir)
        self._policy = _LatestAndBest(keep)
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
                lightweight_initialize=True,  # Without it a damaged one raises here.
            ),
        )

    def remember(self, step: int, scores: Mapping[str, Any]) -> None:
        """Remembers the scores of the state after update `step`, for pruning checkpoints."""
        self._policy.add(step, scores)

    def save(self, step: int, state: TrainState, config: dict[str, Any]) -> None:
        """Starts to save the state after update `step`; its arrays may be donated on return.

        Args:
          step: The number of updates that led to the state.
          state: The state.
          config: The description of the run; see `record.describe`.

        Raises:
          HostError: The checkpoint cannot be written, or the one before could not.
        """
        arrays = items(state)
        with self._writing():
            if not self._manager.save(step, args=_to_save(step, arrays, config)):
                raise RuntimeError(f"checkpoint {step} was not saved: Orbax has a later one")

    def raise_failure(self) -> None:
        """Raises HostError where a save in progress has failed."""
        with self._writing():
            self._manager.check_for_errors()

    def wait(self) -> None:
        """Waits for a save in progress; raises HostError where it fails."""
        with self._writing():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A context that makes a HostError of what a missing or unwritable folder raises."""
        try:
            yield
        except (OSError, ValueError) as error:
            missing = "NOT_FOUND" in str(error)  # So TensorStore reports a missing folder.
            if as_host_error(error) is not error or not (isinstance(error, OSError) or missing):
                raise
            folder, reason = self._root / "checkpoints", one_line(error, 200)
            raise HostError(f"{folder}: cannot be written ({reason})") from error

    def steps(self) -> list[int]:
        """The steps of the finished checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def restore_newest(
        self, abstract: TrainState, check: Callable[[dict[str, Any]], None]
    ) -> tuple[int, TrainState] | None:
        """Restores the newest good checkpoint; newer ones, all damaged, are moved aside.

        Args:
          abstract: The state with shapes, dtypes and shardings in place of arrays.
          check: A function of a checkpoint's config, called before the arrays are read.

        Returns:
          (step, state), or None where there are no checkpoints.

        Raises:
          ArgumentError: There are checkpoints, and none is good.
          FileError: The checkpoints are of another network.
        """
        found = restore.newest(self._manager, self.steps(), items(abstract), check, self._root)
        if found is None:
            return None
        self._set_aside(found.damaged)
        return found.step, found.state

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
        """Waits for a save in progress, and closes Orbax's manager."""
        self.wait()
        self._manager.close()


class Reader:
    """The checkpoints of a run, read only: an evaluation can neither write nor delete any."""

    def __init__(self, workdir: epath.PathLike):
        self._folder = epath.Path(workdir) / "checkpoints"

    def steps(self) -> list[int]:
        """The steps of the finished checkpoints, ascending."""
        return restore.steps(self._folder) if outage.is_dir(self._folder) else []

    def config(self, step: int) -> dict[str, Any]:
        """The description of the run in a checkpoint.

        Raises:
          FileError: The checkpoint is damaged or gone.
        """
        return self.described(step)[1]

    def described(self, step: int) -> tuple[digests.Digests, dict[str, Any]]:
        """The digests of a checkpoint, and `config`."""
        with self._manager() as manager:
            return self._checked(step, lambda: restore.described(manager, step))

    def model(self, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
        """The weights of a checkpoint, {"params", "batch_stats"}, like those of `abstract`.

        Raises:
          FileError: The checkpoint is damaged, gone, or of another network.
        """
        return self._arrays(step, {"model": abstract})["model"]

    def state(self, step: int, abstract: TrainState) -> TrainState:
        """The state in a checkpoint, like `abstract`; it raises what `model` does."""
        arrays = self._arrays(step, items(abstract))
        return TrainState(**arrays["model"], **arrays["optimizer"])

    def restore_newest(
        self, abstract: TrainState, check: Callable[[dict[str, Any]], None]
    ) -> tuple[int, TrainState] | None:
        """Restores what `Checkpoints.restore_newest` does, and moves nothing aside.

        Newer checkpoints that are damaged are named in the log.
        """
        if not (steps := self.steps()):
            return None
        with self._manager() as manager:
            found = restore.newest(manager, steps, items(abstract), check, self._folder.parent)
        assert found is not None
        for step, reason in found.damaged.items():
            _log.warning("checkpoint %d is damaged (%s)", step, reason)
        return found.step, found.state

    def _arrays(self, step: int, wanted: dict[str, Any]) -> dict[str, Any]:
        def read() -> dict[str, Any]:
            stored, _ = restore.described(manager, step)
            return restore.verified(manager, step, wanted, stored)

        with self._manager() as manager:
            return self._checked(step, read)

    def _checked(self, step: int, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except DamagedError as error:
            reason = f"damaged ({error}); use another checkpoint"
            if step not in self.steps():
                reason = "gone: the run has gone on and pruned it"
            raise FileError(f"{self._folder / str(step)}: is {reason}") from error

    def _manager(self) -> "ocp.CheckpointManager":
        options = ocp.CheckpointManagerOptions(
            read_only=True,
            create=False,
            lightweight_initialize=True,
            # Each process reads for itself: where one fails, the others do not wait for it.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=jax.process_index(), active_processes={jax.process_index()}
            ),
        )
        return ocp.CheckpointManager(self._folder, options=options)


class _LatestAndBest:
    """The preservation policy for Orbax: the `keep` latest, and the best by accuracy, else loss."""

    def __init__(self, keep: int):
        self._keep = keep
        names = ("eval_top1", "eval_agreement", "eval_loss")
        self._scores: dict[str, dict[int, float]] = {name: {} for name in names}

    def add(self, step: int, scores: Mapping[str, Any]) -> None:
        """Remembers the scores of a checkpoint that are finite."""
        for name, known in self._scores.items():
            value = scores.get(name)
            if value is not None and math.isfinite(value):
                known[step] = -value if name == "eval_loss" else value

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Whether to keep each of the checkpoints; Orbax calls this."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        preserved = set(sorted(steps)[-self._keep :])
        for known in self._scores.values():
            if scored := [step for step in steps if step in known]:
                preserved.add(max(scored, key=known.__getitem__))
                break
        return [step in preserved for step in steps]


def save_model(
    workdir: epath.PathLike, step: int, variables: dict[str, Any], config: dict[str, Any]
) -> None:
    """Saves a network without an optimizer as the first checkpoint of a new run.

    Args:
      workdir: The folder of the run.
      step: The step of the checkpoint.
      variables: The weights, {"params", "batch_stats"}.
      config: The description of the run; see `record.describe`.
    """
    with ocp.CheckpointManager(epath.Path(workdir) / "checkpoints") as manager:
        manager.save(step, args=_to_save(step, {"model": variables}, config))


def check_path(folder: epath.PathLike, *, argument: str) -> None:
    """Checks that Orbax can read the checkpoints that it writes below a folder.

    Args:
      folder: The folder, which need not exist.
      argument: The name of the caller's argument for the folder, for the error.

    Raises:
      ArgumentError: The path has letters of a glob pattern, or bytes that are not UTF-8.
    """
    path = str(folder)
    wrong = " ".join(sorted(set("*?[]\\") & set(path)))  # Orbax globs for its files.
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
    """Moves a folder, also to another disk, where the checkpoints' folder is a link to one."""
    if is_remote(folder):
        folder.rename(target)
    else:
        shutil.move(str(folder), str(target))


def items(state: TrainState) -> dict[str, Any]:
    """The items of a checkpoint that have a state's arrays, "model" and "optimizer"."""
    return {
        "model": {"params": state.params, "batch_stats": state.batch_stats},
        "optimizer": {"step": state.step, "opt_state": state.opt_state},
    }


def _to_save(step: int, arrays: dict[str, Any], config: dict[str, Any]) -> "ocp.args.Composite":
    return ocp.args.Composite(
        **{item: ocp.args.StandardSave(tree) for item, tree in arrays.items()},
        config=ocp.args.JsonSave(config),
        digests=ocp.args.JsonSave(digests.of_checkpoint(step, arrays, config)),
    )


def quiet() -> None:
    """Silences Orbax: its logs of every file, and the tracebacks of its threads.

    Where one array of a checkpoint cannot be read or written, the threads of all the others end in
    a traceback each, after the error has been raised.
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

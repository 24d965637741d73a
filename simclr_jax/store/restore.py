"""Reads a checkpoint with Orbax, and checks it by its digests."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from etils import epath, epy

from simclr_jax import processes
from simclr_jax.errors import LOST_DISK, ArgumentError, HostError, one_line
from simclr_jax.state import TrainState
from simclr_jax.store import digests
from simclr_jax.store.digests import DamagedError

with epy.lazy_imports():
    import orbax.checkpoint as ocp

# The codes of TensorStore's errors that are not the checkpoint's fault.
_OF_THE_HOST = re.compile(
    r"\b(UNAVAILABLE|DEADLINE_EXCEEDED|PERMISSION_DENIED|RESOURCE_EXHAUSTED)\b"
)


def steps(folder: epath.Path) -> list[int]:
    """The steps of the finished checkpoints in a folder, ascending."""
    # Orbax's other lister takes every folder whose name ends in _DIGITS for a step.
    found = ocp.path.step.standard_name_format().find_all(folder)
    return sorted(each.step for each in found if each.path.name == str(each.step))


class Found(NamedTuple):
    """A good checkpoint.

    Attributes:
      step: The step.
      arrays: The trees of arrays by the name of the item.
      damaged: Why later checkpoints are not good, by their steps.
    """

    step: int
    arrays: Any
    damaged: dict[int, str]

    @property
    def state(self) -> TrainState:
        """The state of training, where all of its items were wanted."""
        return TrainState(**self.arrays["model"], **self.arrays["optimizer"])


def newest(
    manager: ocp.CheckpointManager,
    steps: list[int],
    wanted: dict[str, Any],
    check: Callable[[dict[str, Any]], None],
    workdir: epath.Path,
) -> Found | None:
    """The newest good checkpoint. All processes must call it together.

    Args:
      manager: The manager of the checkpoints.
      steps: Their steps, ascending.
      wanted: The trees of shapes, dtypes and shardings by the name of the item.
      check: A function of a checkpoint's config, called before the arrays are read.
      workdir: The folder of the run, for the error.

    Returns:
      The checkpoint; None where there are none.

    Raises:
      ArgumentError: There are checkpoints, and none is good.
      FileError: The checkpoints are of another network.
    """
    damaged: dict[int, str] = {}
    for step in reversed(steps):
        arrays, reason = None, "another process cannot read it"
        try:
            stored, config = described(manager, step)
            check(config)
            arrays = verified(manager, step, wanted, stored)
        except DamagedError as error:
            reason = str(error)
        if processes.all_have(arrays is not None):
            return Found(step, arrays, damaged)
        damaged[step] = reason
    if damaged:
        step, reason = next(iter(damaged.items()))
        raise ArgumentError(
            "workdir",
            workdir,
            f"none of its {len(damaged)} checkpoints is good (checkpoint {step}: {reason}); "
            "nothing was changed: put a copy of one back, or begin in another workdir",
        )
    return None


def described(manager: ocp.CheckpointManager, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The digests of a checkpoint, and the description of its run.

    Args:
      manager: The manager of the checkpoints.
      step: The step of the checkpoint.

    Raises:
      DamagedError: They cannot be read, or are not what was saved.
      HostError: The environment is at fault.
    """
    read = _restore(manager, step, digests=ocp.args.JsonRestore(), config=ocp.args.JsonRestore())
    return digests.checked(read["digests"], read["config"], step), read["config"]


def verified(
    manager: ocp.CheckpointManager, step: int, wanted: dict[str, Any], stored: dict[str, Any]
) -> Any:
    """The arrays of some items of a checkpoint.

    Args:
      manager: The manager of the checkpoints.
      step: The step of the checkpoint.
      wanted: The trees of shapes, dtypes and shardings by the name of the item.
      stored: The digests of the checkpoint.

    Returns:
      The trees of arrays by the name of the item.

    Raises:
      DamagedError: The arrays cannot be read, or are not what was saved.
      FileError: The arrays are those of another network.
      HostError: The environment is at fault.
    """
    digests.check_kinds(wanted, stored, str(manager.directory / str(step)))
    arrays = _restore(
        manager, step, **{item: ocp.args.StandardRestore(tree) for item, tree in wanted.items()}
    )
    digests.check_arrays({item: arrays[item] for item in wanted}, stored)
    return arrays


def _restore(manager: ocp.CheckpointManager, step: int, **items: Any) -> Any:
    """The items of a checkpoint, as Orbax reads them.

    Raises:
      DamagedError: Orbax cannot read them, not even at a second try.
      HostError: The environment is at fault.
    """
    args = ocp.args.Composite(**items)
    tries = 1 if processes.several() else 2  # Several must all act alike.
    while True:
        tries -= 1
        try:
            return manager.restore(step, args=args)
        except Exception as error:
            reason = one_line(error, 200)
            if _not_the_checkpoints_fault(error, str(manager.directory)):
                folder = manager.directory / str(step)
                raise HostError(f"{folder}: cannot be read ({reason})") from error
            if not tries:
                raise DamagedError(reason) from error


def _not_the_checkpoints_fault(error: Exception, folder: str) -> bool:
    """Whether an error is one of the host or its disk, not of the checkpoint in `folder`."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or number in LOST_DISK:
        return True
    return number is None and _OF_THE_HOST.search(str(error).replace(folder, "")) is not None

"""Reading a checkpoint through Orbax, held against its digests."""

import re
from typing import Any

import orbax.checkpoint as ocp

from simclr_jax import processes
from simclr_jax.errors import LOST_DISK, HostError, one_line
from simclr_jax.store import digests
from simclr_jax.store.digests import DamagedError

# How an error of TensorStore's begins that is not the checkpoint's fault.
_OF_THE_HOST = re.compile(
    r"\b(UNAVAILABLE|DEADLINE_EXCEEDED|PERMISSION_DENIED|RESOURCE_EXHAUSTED)\b"
)


def described(manager: ocp.CheckpointManager, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The digests and the config of a checkpoint. Raises DamagedError."""
    read = _restore(manager, step, digests=ocp.args.JsonRestore(), config=ocp.args.JsonRestore())
    return digests.checked(read["digests"], read["config"], step), read["config"]


def verified(
    manager: ocp.CheckpointManager, step: int, wanted: dict[str, Any], stored: dict[str, Any]
) -> Any:
    """The wanted items' arrays. Raises DamagedError, or FileError if they are another network's."""
    digests.check_kinds(wanted, stored, str(manager.directory / str(step)))
    arrays = _restore(
        manager, step, **{item: ocp.args.StandardRestore(tree) for item, tree in wanted.items()}
    )
    digests.check_arrays({item: arrays[item] for item in wanted}, stored)
    return arrays


def _restore(manager: ocp.CheckpointManager, step: int, **items: Any) -> Any:
    """Orbax's items of a checkpoint.

    Raises:
      DamagedError: Orbax cannot read them, now or a second time.
      HostError: it is not the checkpoint's fault.
    """
    args = ocp.args.Composite(**items)
    tries = 1 if processes.several() else 2  # several must all do the same
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
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or number in LOST_DISK:
        return True
    return number is None and _OF_THE_HOST.search(str(error).replace(folder, "")) is not None

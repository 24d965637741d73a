"""The networks of a run that may go on: its newest one, or each as it comes."""

import sys
import time
from typing import Any

from etils import epath

from simclr_jax import processes
from simclr_jax.config import parts, record
from simclr_jax.errors import FileError
from simclr_jax.run import network as runs
from simclr_jax.store import checkpoint, lock

POLL_SECONDS = 5.0  # The seconds between two looks for new checkpoints with --watch.
# The seconds without a trainer and without a new checkpoint after which --watch ends.
ABANDONED_SECONDS = 300.0


def newest(reader: checkpoint.Reader, run: str) -> runs.Network:
    """The network of the newest checkpoint, even if the run prunes checkpoints meanwhile.

    Args:
      reader: The checkpoints of the run.
      run: The folder of the run, for the message.

    Raises:
      UserError: The run has no checkpoint yet.
      FileError: The newest checkpoint is damaged.
    """
    while (network := unless_pruned(reader, runs.find_step(reader, run, None))) is None:
        pass
    return network


def unless_pruned(reader: checkpoint.Reader, step: int) -> runs.Network | None:
    """The network of a checkpoint; None where the run has pruned the checkpoint meanwhile.

    All processes call it together, and all have the network or none.

    Raises:
      FileError: The checkpoint is damaged.
    """
    network, failure = None, FileError(f"checkpoint {step}: another process cannot read it")
    try:
        network = runs.Network.trained(reader, step)
    except FileError as error:
        failure = error
    if processes.all_have(network is not None):
        return network
    if step in processes.from_primary(reader.steps()):
        raise failure
    return None


def watched(reader: checkpoint.Reader, root: epath.Path) -> Any:
    """Yields the step of each checkpoint as it appears, up to the last step of the run.

    It ends as well when the run has diverged, and when there was neither a trainer nor a new
    checkpoint for `ABANDONED_SECONDS`.

    Args:
      reader: The checkpoints of the run.
      root: The folder of the run.
    """
    seen: set[int] = set()
    alive_at, sign = time.monotonic(), lock.sign_of_life(root)
    while True:
        new = [step for step in processes.from_primary(reader.steps()) if step not in seen]
        seen.update(new)
        yield from new
        run_config = record.from_json(record.read(root))
        imported = run_config.data.num_examples is None
        if imported or parts.schedule(run_config).total_steps in seen:
            return
        before, sign = sign, lock.sign_of_life(root)
        if new or (sign is not None and sign != before):
            alive_at = time.monotonic()
        over = ""
        if time.monotonic() - alive_at > ABANDONED_SECONDS:
            over = f"no process has trained it for {ABANDONED_SECONDS:.0f} s"
        elif sign is None and run_config.train.on_nonfinite == "stop":
            last = max(seen, default=0)
            over = next((f"it diverged ({path})" for path in nonfinite(root, last)), "")
        if processes.from_primary([bool(over)]) == [True]:
            if processes.is_primary():
                at = f"at step {max(seen)}" if seen else "before its first checkpoint"
                print(f"{root}: the run has ended {at}: {over}", file=sys.stderr, flush=True)
            return
        time.sleep(POLL_SECONDS)


def nonfinite(root: epath.Path, step: int) -> list[epath.Path]:
    """The files of a run about numbers that were not finite after a step."""
    folder = root / "nonfinite"
    found = folder.iterdir() if folder.is_dir() else []
    return [path for path in found if path.stem.isdigit() and int(path.stem) > step]

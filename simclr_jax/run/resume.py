"""The beginning of a process's training: the newest good checkpoint, or a new state."""

import json
import logging
from functools import partial
from typing import Any, NamedTuple

import jax
from etils import epath
from ml_collections import FrozenConfigDict

from simclr_jax import processes
from simclr_jax import state as states
from simclr_jax.config import parts, record, same_run
from simclr_jax.config.parts import Parts
from simclr_jax.errors import UserError
from simclr_jax.run import start
from simclr_jax.state import TrainState
from simclr_jax.store.checkpoint import Checkpoints, Reader
from simclr_jax.store.rows import Row

_log = logging.getLogger(__name__)


class Resumed(NamedTuple):
    """The step, the state and the rows that a run continues from.

    Attributes:
      step: The number of updates done.
      state: The state after them, on the devices.
      rows: The rows of the run up to that step.
    """

    step: int
    state: TrainState
    rows: list[Row]


def resume(
    config: FrozenConfigDict,
    built: Parts,
    root: epath.Path,
    checkpoints: Checkpoints | Reader,
    rows: list[Row],
    fingerprints: record.Fingerprints,
    *,
    allow_change: bool,
    says: str = "resumed",
) -> Resumed:
    """Restores the newest good checkpoint, or initialises the state where there is none.

    Args:
      config: The config of the run.
      built: The parts of the run.
      root: The folder of the run.
      checkpoints: The checkpoints of the run; through a reader nothing is changed.
      rows: The rows of its metrics.jsonl.
      fingerprints: The fingerprints of the images to continue with.
      allow_change: Whether keys with the rule ASK may differ, and images in what does not
        change their order; see `same_run.check` and `record.check_same_images`.
      says: What the run does from a step on, for the line that says so.

    Returns:
      The step, the state and the rows to continue from.

    Raises:
      UserError: The folder has another run, or its checkpoints are gone.
      ArgumentError: None of its checkpoints is good.
    """
    _check_agree(config, fingerprints)
    processes.check_agree(latest_checkpoint=str(checkpoints.steps()[-1:]))

    compare = partial(_compare, config, fingerprints, str(root), allow_change=allow_change)
    found = checkpoints.restore_newest(states.abstract(built.initial, built.mesh), compare)
    if found is not None:
        step, state = found
        processes.say(f"{says} from step {step}")
        kept = [row for row in rows if row["step"] <= step]
        _warn_of_missing_rows(root, kept, step, config.log.every_steps)
        # Every process reads all arrays, so that each finds damage by itself; then they are split.
        return Resumed(step, jax.device_put(state, built.placed), kept)
    save_steps = [built.intervals.save]
    if rows and (root / "config.json").exists():
        stored = record.read(root)
        compare(stored)
        save_steps.append(parts.intervals(record.from_json(stored)).save)
    _check_none_is_missing(root, rows, save_steps)
    if rows:
        processes.say(f"no checkpoint in {root}: its {len(rows)} steps are trained again")
    return first(config, built, fingerprints)


def first(config: FrozenConfigDict, built: Parts, fingerprints: record.Fingerprints) -> Resumed:
    """The beginning of a run that has no checkpoint; see `resume` for the arguments.

    Raises:
      UserError: The run cannot start from init.run.
      ArgumentError: Another process has another config or other images.
    """
    _check_agree(config, fingerprints)
    classes = record.classes_of({"fingerprints": fingerprints})
    return Resumed(0, start.first_state(config, built, classes), [])


def _check_agree(config: FrozenConfigDict, fingerprints: record.Fingerprints) -> None:
    """Checks that all processes have the same config and the same images."""
    processes.check_agree(
        config=str(config),
        fingerprint_of_the_images=json.dumps(fingerprints, sort_keys=True),
    )


def _compare(
    config: FrozenConfigDict,
    fingerprints: record.Fingerprints,
    workdir: str,
    stored: dict[str, Any],
    *,
    allow_change: bool,
) -> None:
    """Compares the config and the images with the description of the run so far."""
    before = record.from_json(stored)
    check_images = partial(
        record.check_same_images, fingerprints, stored, workdir, allow_change=allow_change
    )
    if same_run.COUNTED.issuperset(same_run.differing(config, before)):
        check_images()  # It is the images that differ, and not what the user has asked for.
    keys = same_run.check(config, before, workdir, allow_change=allow_change)
    parts = check_images()
    if changed := [*(f"config.{key}" for key in keys), *parts]:
        processes.say(f"changed since the run was last started: {', '.join(changed)}")
    if "fingerprints" not in stored:
        processes.say(
            "the run has no fingerprint of its images so far: whether they are the same is not "
            "known"
        )


def _warn_of_missing_rows(root: epath.Path, rows: list[Row], step: int, log_steps: int) -> None:
    """Warns where metrics.jsonl ends more than `log_steps` before the checkpoint."""
    logged = rows[-1]["step"] if rows else 0
    if step - logged > log_steps and processes.is_primary():
        _log.warning(
            "%s has no rows from step %d to the checkpoint's: were they removed?",
            root / "metrics.jsonl",
            logged + 1,
        )


def _check_none_is_missing(root: epath.Path, rows: list[Row], save_steps: list[int | None]) -> None:
    """Raises UserError where the rows show that a checkpoint was saved, and there is none.

    Args:
      root: The folder of the run.
      rows: The rows of its metrics.jsonl.
      save_steps: The steps between two checkpoints, by the config and by that of the run so far.
    """
    reached = rows[-1]["step"] if rows else 0
    overdue = all(steps and reached > 2 * steps for steps in save_steps)
    if (root / "damaged").exists() or overdue:
        raise UserError(
            f"--workdir={root}: metrics.jsonl reaches step {reached}, yet there is no "
            "checkpoint; put one back, or begin in another workdir"
        )

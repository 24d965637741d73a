"""A run's network, to be used: evaluated, embedded with, exported."""

from functools import partial
from typing import Any, NamedTuple

import jax
from etils import epath
from ml_collections import ConfigDict

from simclr_jax import checkpoint, parts
from simclr_jax import config as configs
from simclr_jax import mesh as meshes
from simclr_jax import state as states
from simclr_jax.errors import UserError
from simclr_jax.evals import features
from simclr_jax.models.simclr import SimCLR
from simclr_jax.store.files import check_client, is_remote


class Network(NamedTuple):
    """Attributes:
    config: the run's.
    model: its `SimCLR`.
    variables: {"params", "batch_stats"}.
    step: of the checkpoint; None: the untrained network.
    """

    config: ConfigDict
    model: SimCLR
    variables: Any
    step: int | None

    @property
    def name(self) -> str:
        return "untrained" if self.step is None else str(self.step)

    @classmethod
    def trained(cls, reader: checkpoint.Reader, step: int) -> "Network":
        """The network of a checkpoint."""
        config = configs.from_json(reader.config(step))
        model = parts.model(config)
        abstract = states.abstract(_initial(config, model), meshes.make())
        return cls(config, model, reader.model(step, abstract), step)

    @classmethod
    def untrained(cls, config: ConfigDict, *, images: ConfigDict) -> "Network":
        """The network as the run initialised it, batch norm calibrated on training images.

        Args:
          config: the run's.
          images: a config whose training split calibrates.
        """
        mesh, model = meshes.make(), parts.model(config)
        variables = features.calibrate(
            model,
            states.on_mesh(_initial(config, model), mesh),
            parts.open_split(images, "train"),
            batch_size=features.ROWS_PER_DEVICE * jax.device_count(),
            image_size=config.data.image_size,
            transfer_dtype=config.data.transfer_dtype,
            mesh=mesh,
        )
        return cls(config, model, variables, None)


def _initial(config: ConfigDict, model: SimCLR) -> Any:
    return partial(
        states.initialize_model, model, seed=config.seed, image_size=config.data.image_size
    )


def open_run(run: str | None) -> epath.Path:
    """The run's folder. Raises UserError if no run is there."""
    if not run:
        raise UserError("--run: required, the folder of a run of simclr-train")
    check_client(run)
    root = epath.Path(run).expanduser()
    if not (root / "config.json").exists():
        raise UserError(f"--run={run}: no run there (no config.json)")
    return root if is_remote(root) else root.resolve()


def find_step(reader: checkpoint.Reader, run: str, step: int | None) -> int:
    """The step asked for, or the newest one. Raises UserError if it has no checkpoint."""
    steps = reader.steps()
    if not steps:
        raise UserError(f"--run={run}: has no checkpoint yet")
    if step is not None and step not in steps:
        raise UserError(f"--step={step}: {run} has checkpoints {', '.join(map(str, steps))}")
    return steps[-1] if step is None else step

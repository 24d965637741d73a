"""A run's network, to be used: evaluated, embedded with, exported."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from simclr_jax import mesh as meshes
from simclr_jax import state as states
from simclr_jax.augment.device import to_float
from simclr_jax.config import parts, record
from simclr_jax.data import pipeline
from simclr_jax.data.order import permutation
from simclr_jax.data.source import Readable
from simclr_jax.errors import UserError
from simclr_jax.models.simclr import SimCLR
from simclr_jax.store import checkpoint
from simclr_jax.store.files import check_client, is_remote

CALIBRATION_BATCHES = 16
ROWS_PER_DEVICE = 64  # The number of images of a batch on a device, where no key says it.


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
        config = record.from_json(reader.config(step))
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
        variables = calibrate(
            model,
            states.on_mesh(_initial(config, model), mesh),
            parts.open_split(images, "train"),
            batch_size=ROWS_PER_DEVICE * jax.device_count(),
            image_size=config.data.image_size,
            transfer_dtype=config.data.transfer_dtype,
            mesh=mesh,
        )
        return cls(config, model, variables, None)


def _initial(config: ConfigDict, model: SimCLR) -> Any:
    return partial(
        states.initialize_model, model, seed=config.seed, image_size=config.data.image_size
    )


def calibrate(
    model: SimCLR,
    variables: Any,
    source: Readable,
    *,
    batch_size: int,
    image_size: int,
    transfer_dtype: str,
    mesh: Mesh,
) -> Any:
    """Batch-norm statistics of an untrained network: their mean over batches of training images.

    At its initialisation a network's moving averages describe no data (mean 0, variance 1); an
    untrained baseline with those would be a strawman.
    """
    zeros = jax.tree.map(jnp.zeros_like, variables["batch_stats"])

    @partial(
        jax.jit,
        out_shardings=meshes.replicated(mesh),
        compiler_options=meshes.compiler_options(mesh),
    )
    def statistics(images: jax.Array) -> Any:
        _, updated = model.apply(
            {"params": variables["params"], "batch_stats": zeros},
            to_float(images),
            train=True,
            mutable=["batch_stats"],
        )
        # One update from zero holds (1 - momentum) = 0.1 of the batch's statistics.
        return jax.tree.map(lambda x: 10.0 * x, updated["batch_stats"])

    count = min(CALIBRATION_BATCHES, max(1, len(source) // batch_size))
    order = permutation(len(source), seed=0, stream=0)
    batches = pipeline.eval_batches(
        source,
        batch_size=batch_size,
        rows=meshes.local_rows(mesh, batch_size),
        image_size=image_size,
        transfer_dtype=transfer_dtype,
        order=np.resize(order, count * batch_size),  # whole batches: nothing padded
    )
    sums = zeros
    for batch in batches:
        images = meshes.put({"image": batch["image"]}, mesh)["image"]
        sums = jax.tree.map(jnp.add, sums, statistics(images))
    return {
        "params": variables["params"],
        "batch_stats": jax.tree.map(lambda x: x / count, sums),
    }


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

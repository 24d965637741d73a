"""The network of a run, for evaluations and exports."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from simclr_jax import mesh as meshes
from simclr_jax import processes
from simclr_jax import state as states
from simclr_jax.augment.device import to_float
from simclr_jax.config import overrides, parts, record, rules, sources
from simclr_jax.data import pipeline
from simclr_jax.data.order import permutation
from simclr_jax.data.readable import Readable
from simclr_jax.errors import UserError
from simclr_jax.models.simclr import SimCLR
from simclr_jax.store import checkpoint, outage
from simclr_jax.store.files import check_client, is_remote

CALIBRATION_BATCHES = 16  # The largest number of batches that calibrate batch norm.
ROWS_PER_DEVICE = 64  # The number of images of a batch on a device where no key gives it.


class Network(NamedTuple):
    """The network of a checkpoint, or the untrained network of a run.

    Attributes:
      config: The config of the run.
      model: The module.
      variables: The weights, {"params", "batch_stats"}.
      step: The step of the checkpoint; None: the untrained network.
    """

    config: ConfigDict
    model: SimCLR
    variables: Any
    step: int | None

    @property
    def name(self) -> str:
        """The step as text, or 'untrained'; the name of the result's folder."""
        return "untrained" if self.step is None else str(self.step)

    @classmethod
    def trained(cls, reader: checkpoint.Reader, step: int) -> "Network":
        """The network of a checkpoint.

        Args:
          reader: The checkpoints of the run.
          step: The step of the checkpoint.

        Raises:
          FileError: The checkpoint is damaged, or pruned meanwhile.
        """
        config = record.from_json(reader.config(step))
        model = parts.model(config)
        abstract = states.abstract(_initial(config, model), meshes.make())
        return cls(config, model, reader.model(step, abstract), step)

    @classmethod
    def untrained(cls, config: ConfigDict, *, images: ConfigDict) -> "Network":
        """The network as the run initialised it, batch norm calibrated on training images.

        Args:
          config: The config of the run.
          images: The config whose training split has the images.
        """
        mesh, model = meshes.make(), parts.model(config)
        # Statistics need no labels, so it does not matter which are seen.
        images = overrides.changed(images, {f"data.{key}": None for key in rules.LABELS})
        variables = calibrate(
            model,
            states.on_mesh(_initial(config, model), mesh),
            sources.open_split(images, "train"),
            batch_size=ROWS_PER_DEVICE * jax.device_count(),
            image_size=config.data.image_size,
            transfer_dtype=config.data.transfer_dtype,
            mesh=mesh,
        )
        return cls(config, model, variables, None)


def _initial(config: ConfigDict, model: SimCLR) -> Any:
    """A function without arguments that initialises the network as the run did."""
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
    """The weights of an untrained network, with batch-norm statistics of training images.

    The moving averages of a new network (mean 0, variance 1) do not fit any data; an untrained
    baseline with them would be needlessly bad.

    Args:
      model: The module.
      variables: The weights, {"params", "batch_stats"}.
      source: The images, of which a random sample is read.
      batch_size: The number of images of a global batch.
      image_size: The side of the images in pixels.
      transfer_dtype: The dtype in which images go to the devices, 'uint8' or 'float32'.
      mesh: The mesh of the devices.
    """
    zeros = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
    model = model.clone(running_norm=False, end_to_end=False, frozen="none")  # For all averages.

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
        # One update from zero gives (1 - momentum) = 0.1 of the statistics of the batch.
        return jax.tree.map(lambda x: 10.0 * x, updated["batch_stats"])

    count = min(CALIBRATION_BATCHES, max(1, len(source) // batch_size))
    order = permutation(len(source), seed=0, stream=0)
    batches = pipeline.eval_batches(
        source,
        batch_size=batch_size,
        rows=meshes.local_rows(mesh, batch_size),
        image_size=image_size,
        transfer_dtype=transfer_dtype,
        order=np.resize(order, count * batch_size),  # Whole batches have no padding.
    )
    sums = zeros
    for batch in batches:
        images = meshes.put({"image": batch["image"]}, mesh)["image"]
        sums = jax.tree.map(jnp.add, sums, statistics(images))
    return {
        "params": variables["params"],
        "batch_stats": jax.tree.map(lambda x: x / count, sums),
    }


def open_run(run: str | None, name: str = "--run") -> epath.Path:
    """The folder of a run, with links resolved on a disk.

    Args:
      run: The folder as the user wrote it.
      name: The flag or the key that names it, for messages.

    Raises:
      UserError: The path is missing, or there is no run in the folder.
      HostError: The folder is in Google's storage, whose client is not installed.
    """
    if not run:
        raise UserError(f"{name}: required, the folder of a run of simclr-train")
    check_client(run)
    root = epath.Path(run).expanduser()
    if not outage.exists(root / "config.json"):
        raise UserError(f"{name}={run}: no run there (no config.json)")
    return root if is_remote(root) else root.resolve()


def find_step(
    reader: checkpoint.Reader,
    run: str,
    step: int | None,
    names: tuple[str, str] = ("--run", "--step"),
) -> int:
    """The step of a checkpoint of a run, the same one in all processes, which call it together.

    Args:
      reader: The checkpoints of the run.
      run: The folder of the run, for the message.
      step: The wanted step; None: the newest one.
      names: The flags or the keys that name the run and the step, for messages.

    Raises:
      UserError: There is no such checkpoint.
    """
    steps = processes.from_primary(reader.steps())
    if not steps:
        raise UserError(f"{names[0]}={run}: has no checkpoint yet")
    if step is not None and step not in steps:
        raise UserError(f"{names[1]}={step}: {run} has checkpoints {', '.join(map(str, steps))}")
    return steps[-1] if step is None else step

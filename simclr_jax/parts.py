"""A config's parts: the one place that turns keys into the model, optimizer and data they name."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from simclr_jax import losses, optim
from simclr_jax import mesh as meshes
from simclr_jax.augment.draws import Views, blur_taps
from simclr_jax.data import pipeline, sources
from simclr_jax.data.order import Order
from simclr_jax.models.resnet import stem_for
from simclr_jax.models.simclr import SimCLR
from simclr_jax.objectives import Metrics
from simclr_jax.objectives.contrastive import Contrastive, Loss
from simclr_jax.objectives.microbatches import TwoPasses
from simclr_jax.state import TrainState
from simclr_jax.step import train_step

Step = Callable[..., tuple[TrainState, Metrics]]

BLOCK_BYTES = 2**27  # of a block of float32 logits that nobody sized, on a device


def open_split(config: ConfigDict, which: str) -> sources.Readable:
    """Opens what the config trains on ('train') or evaluates on ('eval')."""
    source = sources.open_split(
        which, _splits(config), seed=config.seed, held_out=config.data.held_out
    )
    return _readable(config, source)


def open_all(config: ConfigDict) -> dict[str, sources.Readable]:
    """Opens both splits, nothing held out: 'train', and 'eval' where there is such a split."""
    splits = _splits(config)
    opened = {"train": splits.train(), "eval": splits.eval()}
    return {
        name: _readable(config, source) for name, source in opened.items() if source is not None
    }


def _splits(config: ConfigDict) -> sources.Splits:
    data = config.data
    return sources.Splits(
        data.name,
        directory=data.dir,
        train_split=data.train_split,
        eval_split=data.eval_split,
        cache_bytes=data.cache_bytes,
    )


def _readable(config: ConfigDict, source: sources.Source) -> sources.Readable:
    labelled = config.data.num_classes != 0  # 0 asks for unlabelled training
    return sources.Readable(source, on_bad_image=config.data.on_bad_image, labelled=labelled)


def model(config: ConfigDict) -> SimCLR:
    """The network; data.num_classes must be known."""
    m = config.model
    return SimCLR(
        depth=m.depth,
        width=m.width,
        stem=stem_for(m.stem, config.data.image_size),
        sk_ratio=m.sk_ratio,
        se_ratio=m.se_ratio,
        head=m.head,
        head_layers=m.head_layers,
        head_dim=m.head_dim,
        classes=config.data.num_classes,
        dtype=jnp.dtype(m.dtype),
        running_norm=config.train.microbatch_norm == "running",
        remat=m.remat,
    )


def loss(config: ConfigDict, images: int, mesh: Mesh | None = None) -> Loss:
    """The contrastive loss of two views' embeddings.

    Args:
      config: of the run.
      images: to be compared.
      mesh: on which rows are split, each device comparing its own with all; None: on one device.
    """
    devices = 1 if mesh is None else mesh.size
    own = images // devices
    block_rows = config.loss.block_rows or BLOCK_BYTES // (4 * 2 * images)
    return partial(
        losses.LOSSES[config.loss.name],
        temperature=config.loss.temperature,
        normalize=config.loss.normalize,
        block_rows=2 * images // losses.blocks(own, max(2, block_rows)),
        gather=losses.identity if mesh is None else partial(meshes.replicate, mesh=mesh),
    )


@dataclass(frozen=True)
class Schedule:
    """Durations in steps, and the learning rate by step."""

    warmup_steps: int
    total_steps: int
    learning_rate: optax.Schedule


def schedule(config: ConfigDict) -> Schedule:
    """The run's schedule; data.num_examples must be known."""
    batch_size = config.train.batch_size
    warmup, total = optim.step_counts(
        num_examples=config.data.num_examples,
        batch_size=batch_size,
        epochs=config.train.epochs,
        warmup_epochs=config.optim.warmup_epochs,
        steps=config.train.steps,
    )
    peak = optim.peak_learning_rate(config.optim.lr, batch_size, config.optim.lr_scaling)
    return Schedule(warmup, total, optim.warmup_cosine(peak, warmup, total))


def optimizer(config: ConfigDict, learning_rate: optax.Schedule) -> optim.Optimizer:
    """The optimizer over that learning rate."""
    return optim.optimizer(config.optim.name, learning_rate, weight_decay=config.optim.weight_decay)


def blur_radius(config: ConfigDict) -> int:
    """Pixels of the blur that the step has to apply; 0 where it has none."""
    here = "blur" in config.augment.ops and config.augment.blur_on == "device"
    return blur_taps(config.data.image_size) // 2 if here else 0


def objective(config: ConfigDict, mesh: Mesh) -> Contrastive:
    """What the run minimises over a global batch on the mesh."""
    images = config.train.batch_size
    return Contrastive(model(config), loss(config, images, mesh), blur_radius(config))


def step(config: ConfigDict, objective: Contrastive, optimizer: optim.Optimizer) -> Step:
    """`train_step`, in as many microbatches as the config says."""
    count = config.train.microbatches
    return partial(
        train_step,
        objective=objective if count == 1 else TwoPasses(objective, count),
        optimizer=optimizer,
        skip_nonfinite=config.train.on_nonfinite == "skip",
    )


def jitted(step: Step, mesh: Mesh) -> jax.stages.Wrapped:
    """A step to be compiled for the mesh on its first call; donates the state."""
    return jax.jit(
        step,
        donate_argnums=0,
        out_shardings=meshes.replicated(mesh),
        compiler_options=meshes.compiler_options(mesh),
    )


def order(config: ConfigDict, examples: int, batch_size: int | None = None) -> Order:
    """Which of `examples` comes when, in batches of batch_size (None: train.batch_size)."""
    return Order(
        examples,
        batch_size or config.train.batch_size,
        seed=config.seed,
        block=config.data.shuffle_block,
        window=config.data.shuffle_window,
    )


def views(config: ConfigDict) -> Views:
    """How the two views of an image are made."""
    return Views(
        size=config.data.image_size,
        count=2,
        ops=tuple(config.augment.ops),
        strength=config.augment.strength,
        brightness=config.augment.brightness,
        crop_area=tuple(config.augment.crop_area),
        blur_on=config.augment.blur_on,
    )


def train_batches(
    config: ConfigDict,
    source: sources.Readable,
    *,
    rows: np.ndarray,
    start_step: int,
    stop_step: int,
    batch_size: int | None = None,
) -> pipeline.Batches:
    """Two views of each image, as `pipeline.train_batches`, by the config's keys."""
    return pipeline.train_batches(
        source,
        order(config, len(source), batch_size),
        views(config),
        rows=rows,
        start_step=start_step,
        stop_step=stop_step,
        transfer_dtype=config.data.transfer_dtype,
    )

"""The parts of a run, made from the keys of its config: the data, the network, the step, …"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from simclr_jax import losses, optim
from simclr_jax import mesh as meshes
from simclr_jax import state as states
from simclr_jax.config import constraints, inputs, overrides, rules
from simclr_jax.data.readable import Readable
from simclr_jax.models.resnet import stem_for
from simclr_jax.models.simclr import SimCLR
from simclr_jax.objectives import Metrics, microbatches
from simclr_jax.objectives.contrastive import Contrastive, Loss
from simclr_jax.objectives.distilled import Distilled, Teacher, mixture
from simclr_jax.objectives.supervised import Supervised
from simclr_jax.state import TrainState
from simclr_jax.step import measure, train_step

Step = Callable[..., tuple[TrainState, Metrics]]
Objective = Contrastive | Supervised | Distilled


def with_counts(config: FrozenConfigDict, train: Readable) -> FrozenConfigDict:
    """The config with the numbers of training images and of classes, counted in the data.

    Raises:
      UserError: The run would have too many steps, or its objective needs classes.
    """
    counts = {"data.num_examples": len(train), "data.num_classes": train.num_classes}
    config = overrides.changed(config, counts)
    constraints.check_objective(config)
    if schedule(config).total_steps >= 2**31:
        raise rules.wrong("train.epochs", config.train.epochs, "fewer than 2**31 steps")
    return config


def classes(config: ConfigDict) -> int:
    """The number of classes of a config's classifier; 0: there is none.

    They are those of the labels, or, in a distillation without labels, those of the teacher.
    """
    return config.data.num_classes or config.objective.classes or 0


def model(config: ConfigDict) -> SimCLR:
    """The network of a config, whose data.num_classes must be known."""
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
        classes=classes(config),
        classifier_layer=m.classifier_layer,
        end_to_end=config.objective.name != "contrastive",
        dtype=jnp.dtype(m.dtype),
        running_norm=config.train.microbatch_norm == "running",
        frozen=config.train.frozen,
        remat=m.remat,
        channels=config.data.channels,
    )


def loss(config: ConfigDict, images: int, mesh: Mesh | None = None) -> Loss:
    """The contrastive loss of two views' embeddings.

    Args:
      config: The config of the run.
      images: The number N of images that are compared.
      mesh: The mesh over which the rows are split; each device compares its rows with all. None:
        one device.
    """
    devices = 1 if mesh is None else mesh.size
    name, one_view = config.loss.name, config.loss.name in losses.ONE_VIEW
    blocks = losses.choose_blocks(
        images, images // devices, block_rows=config.loss.block_rows, tiled=not one_view
    )
    own: dict[str, Any] = {"mining": config.loss.mining} if one_view else {}
    if not one_view:
        own["block_columns"] = losses.choose_columns(2 * images // devices // blocks)
    if name == "margin_triplet":
        own["margin"] = config.loss.margin
    return partial(
        losses.LOSSES[name],
        **own,
        temperature=config.loss.temperature,
        normalize=config.loss.normalize,
        block_rows=2 * images // blocks,  # On all devices together.
        gather=losses.identity if mesh is None else partial(meshes.replicate, mesh=mesh),
    )


@dataclass(frozen=True)
class Schedule:
    """The number of warm-up steps and of all steps of a run, and the learning rate by step."""

    warmup_steps: int
    total_steps: int
    learning_rate: optax.Schedule


def schedule(config: ConfigDict) -> Schedule:
    """The schedule of a config, whose data.num_examples must be known."""
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
    """The optimizer of a config, with a learning rate by step."""
    return optim.optimizer(config.optim.name, learning_rate, weight_decay=config.optim.weight_decay)


def objective(config: ConfigDict, mesh: Mesh, teacher: Teacher | None = None) -> Objective:
    """The objective that a run minimises, over a global batch on the mesh.

    Args:
      config: The config of the run.
      mesh: The mesh of the devices.
      teacher: The teacher of a distillation; None for another objective.
    """
    if config.objective.name == "supervised":
        return Supervised(model(config), inputs.late(config))
    if config.objective.name == "distill":
        assert teacher is not None
        mixed = mixture(
            config.objective.temperature,
            config.objective.label_weight,
            labelled=config.data.num_classes != 0,
        )
        return Distilled(model(config), teacher, mixed, inputs.late(config))
    images = config.train.batch_size
    return Contrastive(model(config), loss(config, images, mesh), inputs.late(config))


def step(config: ConfigDict, optimizer: optim.Optimizer, mesh: Mesh) -> Step:
    """The train step in the config's number of microbatches.

    Args:
      config: The config of the run.
      optimizer: The optimizer.
      mesh: The mesh of the devices.

    Returns:
      A function (state, batch, objective) → (state, metrics); see `train_step`.
    """
    count, frozen = config.train.microbatches, model(config).is_frozen
    dividing = {"divide": partial(meshes.divide, mesh=mesh)} if config.optim.shard_state else {}

    def update(state: TrainState, batch: Any, objective: Any) -> tuple[TrainState, Metrics]:
        return train_step(
            state,
            batch,
            objective=microbatches.divided(objective, count),
            optimizer=optimizer,
            frozen=frozen,
            skip_nonfinite=config.train.on_nonfinite == "skip",
            **dividing,
        )

    return update


def measuring(config: ConfigDict, optimizer: optim.Optimizer, mesh: Mesh) -> jax.stages.Wrapped:
    """The function (params, batch_stats, batch, objective) → arrays of `step.measure`, jitted."""
    count, frozen = config.train.microbatches, model(config).is_frozen

    def measured(params: Any, batch_stats: Any, batch: Any, objective: Any) -> Metrics:
        if isinstance(objective, Contrastive):
            objective = objective.replace(kept=losses.PAIR_IMAGES)  # type: ignore[attr-defined]
        divided = microbatches.divided(objective, count)
        return measure(
            params, batch_stats, batch, objective=divided, optimizer=optimizer, frozen=frozen
        )

    whole, options = meshes.replicated(mesh), meshes.compiler_options(mesh)
    return jax.jit(measured, out_shardings=whole, compiler_options=options)


def jitted(step: Step, mesh: Mesh, placed: Any = None) -> jax.stages.Wrapped:
    """The train step of `step`, compiled for the mesh on its first call; it donates the state.

    Args:
      step: The train step.
      mesh: The mesh of the devices.
      placed: The shardings of the state. None: every device has a full copy.
    """
    whole = meshes.replicated(mesh)
    return jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(placed or whole, whole),
        compiler_options=meshes.compiler_options(mesh),
    )


@dataclass(frozen=True)
class Intervals:
    """The steps at which a run evaluates, saves, logs and ends.

    >>> [step for step in range(1, 8) if Intervals(7, evaluate=None, save=3, log=1).saves(step)]
    [3, 6, 7]

    Attributes:
      total: The last step.
      evaluate: The steps between two evaluations; None: only at the end.
      save: The steps between two checkpoints; None: only at the end.
      log: The steps between two rows.
      measure: The steps between two rows with what `step.measure` computes; None: there are none.
    """

    total: int
    evaluate: int | None
    save: int | None
    log: int
    measure: int | None = None

    def evaluates(self, step: int) -> bool:
        """Whether the state after update `step` is to be evaluated."""
        return self._is_due(step, self.evaluate)

    def saves(self, step: int) -> bool:
        """Whether the state after update `step` is to be saved."""
        return self._is_due(step, self.save)

    def logs(self, step: int) -> bool:
        """Whether update `step` has a row even if it is not evaluated."""
        return step % self.log == 0 or self.measures(step)

    def measures(self, step: int) -> bool:
        """Whether the row of update `step` has what `step.measure` computes."""
        return self.measure is not None and step % self.measure == 0

    def _is_due(self, step: int, every: int | None) -> bool:
        return step == self.total or (every is not None and step % every == 0)


def intervals(config: ConfigDict) -> Intervals:
    """The intervals of a config, whose data.num_examples must be known."""

    def steps(section: ConfigDict) -> int | None:
        if section.every_steps is not None:
            return section.every_steps
        if section.every_epochs is None:
            return None
        steps_per_epoch = config.data.num_examples / config.train.batch_size
        return max(1, round(section.every_epochs * steps_per_epoch))

    return Intervals(
        total=schedule(config).total_steps,
        evaluate=steps(config.eval),
        save=steps(config.checkpoint),
        log=config.log.every_steps,
        measure=config.log.measures_every_steps,
    )


@dataclass(frozen=True)
class Parts:
    """The parts of a training run, each built once.

    Attributes:
      mesh: The mesh of the devices.
      schedule: The numbers of steps, and the learning rate by step.
      intervals: The steps at which the run evaluates, saves, logs and ends.
      objective: The objective that a step minimises, with the network.
      jitted: The train step (state, batch, objective) → (state, metrics), compiled on its first
        call; it donates its state.
      measuring: The function of `measuring`, compiled on its first call.
      initial: A function without arguments that makes the state before the first update.
      placed: The shardings of the state, from `state.shardings`.
    """

    mesh: Mesh
    schedule: Schedule
    intervals: Intervals
    objective: Objective
    jitted: jax.stages.Wrapped
    measuring: jax.stages.Wrapped
    initial: Callable[[], TrainState]
    placed: Any

    def first(self) -> TrainState:
        """The state before the first update, on the devices."""
        return states.on_mesh(self.initial, self.mesh, self.placed)

    def step(self, state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        """One update of the run, with its objective."""
        return self.jitted(state, batch, self.objective)

    def measure(self, state: TrainState, batch: Any) -> Metrics:
        """What is measured of the update of a state by a batch: scalars by name.

        They are those of `step.measure`, and `losses.pair_measures` of the kept embeddings.
        """
        found = self.measuring(state.params, state.batch_stats, batch, self.objective)
        z_NVD = found.pop("embeddings", None)
        return found if z_NVD is None else {**found, **_pair_measures(z_NVD[:, 0], z_NVD[:, 1])}


# XLA's options of `mesh.compiler_options` do not take the layouts of singular values.
_pair_measures = jax.jit(losses.pair_measures)


def build(config: ConfigDict, mesh: Mesh, teacher: Teacher | None = None) -> Parts:
    """Builds the parts of a training run.

    Args:
      config: The config of the run; data.num_examples and data.num_classes must be known.
      mesh: The mesh of the devices that it runs on.
      teacher: The teacher of a distillation; None for another objective.
    """
    durations, minimised = schedule(config), objective(config, mesh, teacher)
    tuned = optimizer(config, durations.learning_rate)
    initial = partial(
        states.initialize,
        minimised.model,
        tuned.tx,
        seed=config.seed,
        image_size=config.data.image_size,
    )
    placed = states.shardings(initial, mesh, divide=config.optim.shard_state)
    compiled = jitted(step(config, tuned, mesh), mesh, placed)
    measured = measuring(config, tuned, mesh)
    return Parts(mesh, durations, intervals(config), minimised, compiled, measured, initial, placed)

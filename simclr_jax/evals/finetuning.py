"""Fine-tuning of a whole network by SGD, many times with one compiled step.

Reference: Chen et al. 2020, appendix B.8.2 (arXiv 2002.05709). The paper does not give the schedule
of the rate; here it falls to 0 as a cosine, without a warm-up.
"""

import contextlib
import dataclasses
import sys
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from simclr_jax import mesh as meshes
from simclr_jax import optim
from simclr_jax import state as states
from simclr_jax.augment import crops
from simclr_jax.config import inputs, overrides, parts
from simclr_jax.data.readable import Readable
from simclr_jax.errors import DivergedError
from simclr_jax.evals.features import Features
from simclr_jax.evals.grid import Point
from simclr_jax.evals.task import Task
from simclr_jax.run.progress import Count
from simclr_jax.state import TrainState

LOOK_EVERY = 50  # The number of steps after which it is looked whether a training has diverged.


def norm_momentum(examples: int, batch_size: int) -> float:
    """The momentum of batch norm's moving averages, max(1 - 10/s, 0.9) for s steps of an epoch.

    >>> norm_momentum(256_000, 256), norm_momentum(2560, 256)
    (0.99, 0.9)
    """
    return max(1 - 10 * batch_size / examples, 0.9)


class FineTuning:
    """Fine-tunes the encoder of a network with a new classifier.

    Args:
      task: The task. The classifier sits on features.layer.

    Attributes:
      steps: The number of steps of a training.
    """

    def __init__(self, task: Task):
        keys = task.config.transfer
        self.steps = keys.steps
        self._network = task.network
        self._mesh = meshes.make()
        self._config = overrides.changed(
            task.run_config,
            {
                "seed": task.config.seed,
                "data.num_classes": task.train.num_classes,
                "data.views": None,
                "augment.ops": ("crop", "flip"),
                "augment.policy": None,
                "augment.crop_area": crops.AREA,
                "objective.name": "supervised",
                "model.classifier_layer": task.config.features.layer,
                "optim.shard_state": False,
                "train.batch_size": keys.batch_size,
                "train.microbatches": keys.microbatches,
                "train.microbatch_norm": "per_microbatch",
                "train.frozen": "none",
                "train.on_nonfinite": "stop",
            },
        )
        self._objective = parts.objective(self._config, self._mesh)
        self._extractor = task.extractor_of(self._objective.model, None, layer="logits")
        self._step = parts.jitted(self._update, self._mesh)

    def train(self, source: Readable, point: Point) -> Any:
        """Trains from the network's weights.

        Args:
          source: The images.
          point: The learning rate and the weight decay.

        Returns:
          The weights, {"params", "batch_stats"}.

        Raises:
          DivergedError: A loss, a gradient or a weight is not finite.
        """
        batch_size = self._config.train.batch_size
        momentum = norm_momentum(len(source), batch_size)
        model = self._objective.model.clone(norm_momentum=momentum)
        objective = dataclasses.replace(self._objective, model=model)
        state = jax.tree.map(jnp.copy, self._first)  # The step donates what it is given.
        batches = inputs.train_batches(
            self._config,
            source,
            rows=meshes.local_rows(self._mesh, batch_size),
            start_step=0,
            stop_step=self.steps,
        )
        count = Count(f"fine-tuning, {point.name}:", self.steps * batch_size, sys.stderr)
        finite: Any = True
        with contextlib.closing(batches):
            for number, batch in enumerate(batches, 1):
                placed = meshes.put(batch, self._mesh)
                state, metrics = self._step(state, placed, objective, point.lr, point.weight_decay)
                # The host is one step ahead of the device, so that batches do not pile up there.
                jax.block_until_ready(finite)
                finite = jnp.logical_and(finite, metrics["finite"])
                count.add(batch_size)
                if (number % LOOK_EVERY == 0 or number == self.steps) and not bool(finite):
                    raise DivergedError(
                        f"the fine-tuning with {point.name} has diverged before step {number}"
                    )
        count.end()
        return {"params": state.params, "batch_stats": state.batch_stats}

    def logits(self, variables: Any, source: Readable) -> Features:
        """The logits (n, C) of every readable image, with the labels.

        Args:
          variables: The weights, as `train` returns them.
          source: The images.

        Raises:
          DivergedError: Logits are not finite.
        """
        found = list(self._extractor.of(variables).evaluation(source))
        return Features(*(np.concatenate(each) for each in zip(*found, strict=True)))

    @cached_property
    def _first(self) -> TrainState:
        """The state before the first update: the network's weights, and a new classifier."""
        tx = optim.optimizer("momentum", optim.warmup_cosine(1.0, 0, 1), weight_decay=0.0).tx
        model, size = self._objective.model, self._config.data.image_size
        seed = self._config.seed
        initial = partial(states.initialize, model, tx, seed=seed, image_size=size)
        state = states.on_mesh(initial, self._mesh)
        kept = {
            kind: {name: part for name, part in tree.items() if name != "classifier"}
            for kind, tree in self._network.variables.items()
        }
        return dataclasses.replace(
            state,
            params=states.merged(state.params, kept["params"]),
            batch_stats=states.merged(state.batch_stats, kept["batch_stats"]),
        )

    def _update(self, state: TrainState, batch: Any, objective: Any, lr: Any, decay: Any) -> Any:
        """One update, with the peak learning rate and the weight decay as arguments."""
        schedule = optim.warmup_cosine(lr, 0, self.steps)
        tuned = optim.optimizer("momentum", schedule, weight_decay=decay)
        return parts.step(self._config, tuned, self._mesh)(state, batch, objective)

"""Evaluation while training: the contrastive loss and the online classifier on held-out images."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import FrozenConfigDict

from simclr_jax import mesh as meshes
from simclr_jax.augment.device import to_float, views_of
from simclr_jax.config import parts
from simclr_jax.config.parts import Parts
from simclr_jax.data import pipeline
from simclr_jax.data.source import Readable
from simclr_jax.models.simclr import SimCLR
from simclr_jax.objectives.contrastive import Contrastive
from simclr_jax.state import TrainState

HostBatches = Callable[[], Iterator[dict[str, np.ndarray]]]


class OnlineEvaluation:
    """Evaluates a train state with batch norm in inference mode.

    Args:
      objective: What training minimises, with the loss of a batch of the evaluation.
      mesh: The devices.
      num_examples: The number of images in the evaluation split.
      batch_size: The number of images of a global batch, of both kinds of batches.
      views: A function that opens the batches of two augmented views, the same ones each time.
      images: A function that opens the batches of evaluation views, the last padded and masked.
    """

    def __init__(
        self,
        *,
        objective: Contrastive,
        mesh: Mesh,
        num_examples: int,
        batch_size: int,
        views: HostBatches,
        images: HostBatches,
    ):
        self._mesh = mesh
        self._num_examples = num_examples
        self._batch_size = batch_size
        self._views, self._images = views, images
        self._loss = jax.jit(lambda z_a, z_b: objective.loss(z_a, z_b)[0])
        on_all = partial(
            jax.jit,
            out_shardings=meshes.replicated(mesh),
            compiler_options=meshes.compiler_options(mesh),
        )
        model, blur_radius = objective.model, objective.blur_radius
        self._embed = on_all(partial(embed, model=model, blur_radius=blur_radius))
        self._correct = on_all(partial(count_correct, model=model))

    def __call__(
        self, state: TrainState, give_up: Callable[[], bool] = lambda: False
    ) -> dict[str, float] | None:
        """{"eval_loss", and for labelled data "eval_top1"} of the state.

        None if `give_up` said so, which is asked before each batch.
        """
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        embedded = []
        for batch in self._views():
            if give_up():
                return None
            embedded.append(np.asarray(self._embed(variables, self._put(batch))))
        z_N2D = np.concatenate(embedded)[: self._num_examples]
        # Compared in batches as in training, for the loss grows with the number of negatives.
        total = 0.0
        for start in range(0, len(z_N2D), self._batch_size):
            z = z_N2D[start : start + self._batch_size]
            total += float(self._loss(z[:, 0], z[:, 1])) * len(z)
        metrics = {"eval_loss": total / len(z_N2D)}
        if "classifier" in state.params:
            correct = []
            for batch in self._images():
                if give_up():
                    return None
                correct.append(self._correct(variables, self._put(batch)))
            metrics["eval_top1"] = sum(map(int, correct)) / self._num_examples
        return metrics

    def _put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        return meshes.put(batch, self._mesh)


def open_evaluation(config: FrozenConfigDict, built: Parts, source: Readable) -> OnlineEvaluation:
    """The evaluation of a run while it trains, on the images of its evaluation split."""
    size = config.eval.batch_size or config.train.batch_size
    rows = meshes.local_rows(built.mesh, size)
    return OnlineEvaluation(
        objective=replace(built.objective, loss=parts.loss(config, size)),
        mesh=built.mesh,
        num_examples=len(source),
        batch_size=size,
        views=lambda: parts.train_batches(
            config,
            source,
            rows=rows,
            start_step=0,
            stop_step=math.ceil(len(source) / size),
            batch_size=size,
        ),
        images=lambda: pipeline.eval_batches(
            source,
            batch_size=size,
            rows=rows,
            image_size=config.data.image_size,
            transfer_dtype=config.data.transfer_dtype,
        ),
    )


def embed(
    variables: Any, batch: dict[str, jax.Array], *, model: SimCLR, blur_radius: int
) -> jax.Array:
    """z (n, 2, D) of both views."""
    outputs: Any = model.apply(variables, views_of(batch, blur_radius=blur_radius), train=False)
    return outputs.z[-1].reshape(-1, 2, outputs.z[-1].shape[-1])


def count_correct(variables: Any, batch: dict[str, jax.Array], *, model: SimCLR) -> jax.Array:
    """How many examples, padding left out, the online classifier gets right."""
    outputs: Any = model.apply(variables, to_float(batch["image"]), train=False)
    right = outputs.logits.argmax(axis=-1) == batch["label"]
    return jnp.sum(right & batch["mask"])

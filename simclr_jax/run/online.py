"""The evaluation during training: contrastive loss and online classifier on held-out images."""

import contextlib
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

HostBatches = Callable[[], Iterator[dict[str, np.ndarray]]]  # Opens batches on the host.


class OnlineEvaluation:
    """Evaluates a train state with batch norm in inference mode.

    Args:
      objective: The objective of the run, with the loss of an evaluation batch.
      mesh: The mesh of the devices.
      batch_size: The number of images that the loss compares.
      views: A function that opens the batches of two augmented views, the same ones each time, with
        a mask that is False where an image stands for another one. Their size is that which the
        network takes at a time.
      images: A function that opens the batches of evaluation views, masked likewise; None for
        images without labels.
    """

    def __init__(
        self,
        *,
        objective: Contrastive,
        mesh: Mesh,
        batch_size: int,
        views: HostBatches,
        images: HostBatches | None,
    ):
        self._mesh = mesh
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
        """The scores of a state.

        Args:
          state: The state.
          give_up: A function that is called before each batch and says whether to give up.

        Returns:
          "eval_loss" and, for labelled data, "eval_top1" (a fraction), of the images that can be
          read; None where it gave up.
        """
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        embedded, kept = [], []
        for batch in self._views():
            if give_up():
                return None
            z, mask = self._embed(variables, self._put(batch))
            embedded.append(np.asarray(z))
            kept.append(np.asarray(mask))
        z_N2D = np.concatenate(embedded)[np.concatenate(kept)]
        # The loss grows with the number of negatives, so images are compared in batches here too.
        total = 0.0
        for start in range(0, len(z_N2D), self._batch_size):
            z = z_N2D[start : start + self._batch_size]
            total += float(self._loss(z[:, 0], z[:, 1])) * len(z)
        metrics = {"eval_loss": total / len(z_N2D)}
        if "classifier" in state.params and self._images is not None:
            correct = count = 0
            for batch in self._images():
                if give_up():
                    return None
                # The wait for each count keeps later batches from filling the device's memory.
                right, seen = self._correct(variables, self._put(batch))
                correct, count = correct + int(right), count + int(seen)
            if count:
                metrics["eval_top1"] = correct / count
        return metrics

    def _put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        return meshes.put(batch, self._mesh)


def open_evaluation(config: FrozenConfigDict, built: Parts, source: Readable) -> OnlineEvaluation:
    """The evaluation of a run during its training.

    Args:
      config: The config of the run.
      built: The parts of the run.
      source: The evaluation split.
    """
    size = compared = config.eval.batch_size or config.train.batch_size
    if config.train.microbatches > 1:  # What fits in training is to fit here.
        size = min(compared, config.train.batch_size // config.train.microbatches)
    rows = meshes.local_rows(built.mesh, size)
    order = parts.order(config, len(source), size)
    steps = math.ceil(len(source) / size)

    def views() -> Iterator[dict[str, np.ndarray]]:
        batches = parts.train_batches(
            config, source, rows=rows, start_step=0, stop_step=steps, batch_size=size
        )
        with contextlib.closing(batches):
            for step, batch in zip(range(steps), batches, strict=True):
                index, epoch = order.batch(step, rows)
                yield {**batch, "mask": (epoch == 0) & source.readable(index)}

    images = partial(
        pipeline.eval_batches,
        source,
        batch_size=size,
        rows=rows,
        image_size=config.data.image_size,
        transfer_dtype=config.data.transfer_dtype,
    )
    return OnlineEvaluation(
        objective=replace(built.objective, loss=parts.loss(config, compared)),
        mesh=built.mesh,
        batch_size=compared,
        views=views,
        images=images if source.num_classes else None,
    )


def embed(
    variables: Any, batch: dict[str, jax.Array], *, model: SimCLR, blur_radius: int
) -> tuple[jax.Array, jax.Array]:
    """The embeddings (N, 2, D) of both views of each image, before normalisation, and the mask.

    Args:
      variables: The weights, {"params", "batch_stats"}.
      batch: The batch of views, as the train step takes it, and its "mask".
      model: The module.
      blur_radius: The radius of the blur in pixels; 0: none.
    """
    outputs: Any = model.apply(variables, views_of(batch, blur_radius=blur_radius), train=False)
    return outputs.z[-1].reshape(-1, 2, outputs.z[-1].shape[-1]), batch["mask"]


def count_correct(
    variables: Any, batch: dict[str, jax.Array], *, model: SimCLR
) -> tuple[jax.Array, jax.Array]:
    """The number of labelled examples that the online classifier gets right, and their number.

    Args:
      variables: The weights, {"params", "batch_stats"}.
      batch: The images, their labels, and "mask", which is False for those not to count.
      model: The module.
    """
    outputs: Any = model.apply(variables, to_float(batch["image"]), train=False)
    right = outputs.logits.argmax(axis=-1) == batch["label"]
    counted = batch["mask"] & (batch["label"] >= 0)
    return jnp.sum(right & counted), jnp.sum(counted)

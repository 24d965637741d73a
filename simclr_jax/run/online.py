"""The evaluation during training: the loss, the classifier and neighbours of held-out images."""

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import FrozenConfigDict

from simclr_jax import losses
from simclr_jax import mesh as meshes
from simclr_jax.augment.device import Late, to_float, views_of
from simclr_jax.config import inputs, parts
from simclr_jax.config.parts import Parts
from simclr_jax.data import pipeline
from simclr_jax.data.readable import Readable
from simclr_jax.models.simclr import SimCLR
from simclr_jax.objectives.contrastive import Loss
from simclr_jax.objectives.distilled import Distilled, Teacher
from simclr_jax.run.voters import Voters, voters
from simclr_jax.state import TrainState

HostBatches = Callable[[], Iterator[dict[str, np.ndarray]]]  # Opens batches on the host.


class Compared(NamedTuple):
    """What is compared in the evaluation of a contrastive objective.

    Attributes:
      loss: The contrastive loss of an evaluation batch.
      batch_size: The number of images that the loss compares.
      views: A function that opens the batches of two augmented views, the same ones each time, with
        a mask that is False where an image stands for another one. Their size is that which the
        network takes at a time.
      late: The augmentations that the device applies.
    """

    loss: Loss
    batch_size: int
    views: HostBatches
    late: Late = Late()


class Imitated(NamedTuple):
    """What a student of images without labels is compared with.

    Attributes:
      teacher: The teacher.
      temperature: The temperature of the distillation.
    """

    teacher: Teacher
    temperature: float


class OnlineEvaluation:
    """Evaluates a train state with batch norm in inference mode.

    Args:
      model: The network.
      mesh: The mesh of the devices.
      compared: What a contrastive objective compares; None: the classifier gives the loss.
      images: A function that opens the batches of evaluation views, with a mask that is False where
        an image stands for another one; None: there is nothing to judge the classifier by.
      multilabel: Whether an image can have several labels.
      imitated: What judges the classifier; None: the labels of the images.
      voters: The images among which the neighbours are; None: there are none.
    """

    def __init__(
        self,
        *,
        model: SimCLR,
        mesh: Mesh,
        compared: Compared | None,
        images: HostBatches | None,
        multilabel: bool = False,
        imitated: Imitated | None = None,
        voters: Voters | None = None,
    ):
        self._mesh, self._compared, self._images = mesh, compared, images
        on_all = partial(
            jax.jit,
            out_shardings=meshes.replicated(mesh),
            compiler_options=meshes.compiler_options(mesh),
        )
        if compared is not None:
            loss = compared.loss
            self._loss = jax.jit(lambda z_a, z_b: loss(z_a, z_b)[0])
            self._embed = on_all(partial(embed, model=model, late=compared.late))
        # Only where there is no contrastive loss is the classifier's computed.
        judge = partial(classify, model=model, with_loss=compared is None)
        self._judge = on_all(partial(judge, with_features=voters is not None))
        self._voters = voters
        self._score = "eval_binary_accuracy" if multilabel else "eval_top1"
        self._given: tuple[Teacher, ...] = ()
        if imitated is not None:
            self._judge = on_all(partial(imitate, model=model, temperature=imitated.temperature))
            self._score, self._given = "eval_agreement", (imitated.teacher,)

    def __call__(
        self, state: TrainState, give_up: Callable[[], bool] = lambda: False
    ) -> dict[str, float] | None:
        """The scores of a state.

        Args:
          state: The state.
          give_up: A function that is called before each batch and says whether to give up.

        Returns:
          "eval_loss" and, for labelled data, "eval_top1", of the images that can be read; with
          several labels an image "eval_binary_accuracy" in its place, the fraction of all labels
          that the sign of a logit tells; in a distillation without labels "eval_agreement", that of
          the images for which the teacher prefers the same class. With voters also "eval_knn", the
          accuracy of their votes. None where it gave up.
        """
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        scores: dict[str, float] = {}
        if self._compared is not None:
            embedded, kept = [], []
            for batch in self._compared.views():
                if give_up():
                    return None
                z, mask = self._embed(variables, meshes.put(batch, self._mesh))
                embedded.append(np.asarray(z))
                kept.append(np.asarray(mask))
            z_N2D = np.concatenate(embedded)[np.concatenate(kept)]
            scores["eval_loss"] = self._mean_loss(z_N2D, self._compared.batch_size)
        if "classifier" in state.params and self._images is not None:
            known = None
            if self._voters and (known := self._voters.known(variables, give_up)) is None:
                return None
            sums, voted = np.zeros(3), 0
            for batch in self._images():
                if give_up():
                    return None
                # The wait for each sum keeps later batches from filling the device's memory.
                on_devices = meshes.put(batch, self._mesh)
                *judged, features = self._judge(variables, on_devices, *self._given)
                sums += np.asarray(judged, float)
                if self._voters and known:
                    label, mask = on_devices["label"], on_devices["mask"]
                    voted += self._voters.right(features, label, mask, known)
            correct, count, loss = sums.tolist()
            if count:
                scores = {"eval_loss": loss / count, **scores, self._score: correct / count}
                scores |= {"eval_knn": voted / count} if known and len(known[1]) else {}
        return scores

    def _mean_loss(self, z_N2D: np.ndarray, batch_size: int) -> float:
        """The mean over N images of the contrastive loss.

        The loss grows with the number of negatives, so images are compared in batches as in
        training.
        """
        total = 0.0
        for start in range(0, len(z_N2D), batch_size):
            z = z_N2D[start : start + batch_size]
            total += float(self._loss(z[:, 0], z[:, 1])) * len(z)
        return total / len(z_N2D)


def open_evaluation(
    config: FrozenConfigDict, built: Parts, source: Readable, train: Readable | None = None
) -> OnlineEvaluation:
    """The evaluation of a run during its training.

    Args:
      config: The config of the run.
      built: The parts of the run.
      source: The evaluation split.
      train: The training split, among whose images the neighbours are; None: none are sought.
    """
    size = compared = config.eval.batch_size or config.train.batch_size
    if config.train.microbatches > 1:  # What fits in training is to fit here.
        size = min(compared, config.train.batch_size // config.train.microbatches)
    rows = meshes.local_rows(built.mesh, size)
    order = inputs.order(config, len(source), size)
    steps = math.ceil(len(source) / size)

    def views() -> Iterator[dict[str, np.ndarray]]:
        batches = inputs.train_batches(
            config, source, rows=rows, start_step=0, stop_step=steps, in_order=order
        )
        with contextlib.closing(batches):
            for step, batch in zip(range(steps), batches, strict=True):
                index, epoch = order.batch(step, rows)
                yield {**batch, "mask": (epoch == 0) & source.readable(index)}

    images = partial(
        pipeline.eval_batches,
        batch_size=size,
        rows=rows,
        image_size=config.data.image_size,
        transfer_dtype=config.data.transfer_dtype,
    )
    pairs = Compared(parts.loss(config, compared), compared, views, inputs.late(config))
    imitated = None
    if isinstance(built.objective, Distilled) and not source.num_classes:
        imitated = Imitated(built.objective.teacher, config.objective.temperature)
    return OnlineEvaluation(
        model=built.objective.model,
        mesh=built.mesh,
        compared=pairs if config.objective.name == "contrastive" else None,
        images=partial(images, source) if is_judged(config, source) else None,
        multilabel=source.multilabel,
        imitated=imitated,
        voters=voters(
            config,
            train,
            source,
            model=built.objective.model,
            mesh=built.mesh,
            images=images,
        ),
    )


def is_judged(config: FrozenConfigDict, source: Readable) -> bool:
    """Whether the classifier is judged by images: by their labels, or by what its teacher says.

    Args:
      config: The config of the run; data.num_classes must be known.
      source: The evaluation split.
    """
    by_something = source.num_classes > 0 or config.objective.name == "distill"
    return parts.classes(config) > 0 and by_something


def embed(
    variables: Any, batch: dict[str, jax.Array], *, model: SimCLR, late: Late
) -> tuple[jax.Array, jax.Array]:
    """The embeddings (N, 2, D) of both views of each image, before normalisation, and the mask.

    Args:
      variables: The weights, {"params", "batch_stats"}.
      batch: The batch of views, as the train step takes it, and its "mask".
      model: The module.
      late: The augmentations that the device applies.
    """
    outputs: Any = model.apply(variables, views_of(batch, late), train=False)
    return outputs.z[-1].reshape(-1, 2, outputs.z[-1].shape[-1]), batch["mask"]


def classify(
    variables: Any,
    batch: dict[str, jax.Array],
    *,
    model: SimCLR,
    with_loss: bool,
    with_features: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
    """What the classifier makes of a batch, summed over its labels that count.

    Args:
      variables: The weights, {"params", "batch_stats"}.
      batch: The images, their labels, and "mask", which is False for those not to count.
      model: The module.
      with_loss: Whether to compute the cross-entropy.
      with_features: Whether to return the representations.

    Returns:
      The number of images that are classified correctly, the number of all that count, and the sum
      of their cross-entropies in nats, or 0. With labels (N, C) they are numbers of labels. Last
      the representations (N, F), or None.
    """
    outputs: Any = model.apply(variables, to_float(batch["image"]), train=False)
    label, mask = batch["label"], batch["mask"]
    if label.ndim == 2:
        right, mask = (outputs.logits > 0) == (label == 1), mask[:, None]
    else:
        right = outputs.logits.argmax(axis=-1) == label
    counted = mask & (label >= 0)
    loss = jnp.zeros([])
    if with_loss:
        loss, _ = losses.label_loss(
            outputs.logits, label, counted.size * counted.astype(jnp.float32)
        )
    features = outputs.h if with_features else None
    return jnp.sum(right & counted), jnp.sum(counted), loss, features


def imitate(
    variables: Any,
    batch: dict[str, jax.Array],
    teacher: Teacher,
    *,
    model: SimCLR,
    temperature: float,
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    """What the classifier makes of a batch beside its teacher, summed over its images.

    Args:
      variables: The weights, {"params", "batch_stats"}.
      batch: The images, and "mask", which is False for those not to count.
      teacher: The teacher.
      model: The module.
      temperature: The temperature of the distillation.

    Returns:
      The number of images for which both prefer the same class, the number of all that count, and
      the sum of their `losses.distillation`; last None, as `classify` without features.
    """
    images, mask = to_float(batch["image"]), batch["mask"]
    outputs: Any = model.apply(variables, images, train=False)
    taught: Any = teacher.model.apply(teacher.variables, images, train=False)
    loss, same = losses.distillation(
        outputs.logits,
        taught.logits,
        temperature=temperature,
        weights_N=len(mask) * mask.astype(jnp.float32),  # The means become sums.
    )
    return same, jnp.sum(mask), loss, None

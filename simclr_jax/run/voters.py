"""The training images whose labels vote for the class of an evaluation image, during training.

The votes are those of the evaluation by nearest neighbours, of fewer training images; where these
are few, fewer neighbours vote.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import FrozenConfigDict

from simclr_jax import losses
from simclr_jax import mesh as meshes
from simclr_jax.augment.device import to_float
from simclr_jax.config import overrides, rules
from simclr_jax.data.readable import Readable
from simclr_jax.data.source import evenly_spaced
from simclr_jax.losses import neighbours
from simclr_jax.models.simclr import SimCLR
from simclr_jax.run import progress

NEIGHBOURS = 200  # The number of neighbours of an image that vote, where that is not too many.

Known = tuple[np.ndarray, np.ndarray]  # Representations (m, F) float32 and labels (m,) int32.


class Voters:
    """Training images that vote for the classes of other images.

    Args:
      model: The network.
      mesh: The mesh of the devices.
      images: A function that opens the batches of their evaluation views, with a mask that is False
        where an image stands for another one.
      classes: The number of classes.
    """

    def __init__(
        self,
        *,
        model: SimCLR,
        mesh: Mesh,
        images: Callable[[], Iterator[dict[str, np.ndarray]]],
        classes: int,
    ):
        self._mesh, self._images = mesh, images
        on_all = partial(
            jax.jit,
            out_shardings=meshes.replicated(mesh),
            compiler_options=meshes.compiler_options(mesh),
        )
        self._represent = on_all(partial(represent, model=model))
        self._right = jax.jit(partial(right, classes=classes), static_argnames="k")
        self._said = False

    def known(self, variables: Any, give_up: Callable[[], bool]) -> Known | None:
        """The representations and the labels of the images with a label; None where it gave up.

        The first time it says how many neighbours vote, where it is not `NEIGHBOURS`.

        Args:
          variables: The weights, {"params", "batch_stats"}.
          give_up: A function that is called before each batch and says whether to give up.
        """
        found, labels = [], []
        for batch in self._images():
            if give_up():
                return None
            h, label = map(np.asarray, self._represent(variables, meshes.put(batch, self._mesh)))
            found.append(h[label >= 0])
            labels.append(label[label >= 0])
        known = np.concatenate(found), np.concatenate(labels)
        if (k := nearest_of(len(known[1]))) != NEIGHBOURS and not self._said and len(known[1]):
            self._said = True
            progress.note(
                f"eval_knn takes the votes of the {k} nearest of {len(known[1])} training images, "
                f"a tenth of them; {NEIGHBOURS} would be more than half"
            )
        return known

    def right(self, x: jax.Array, label: jax.Array, mask: jax.Array, known: Known) -> int:
        """The number of images of a batch for whose class most votes are; see `right`.

        Args:
          x: The representations (n, F) of the images.
          label: Their labels (n,), int; -1: none, which is not counted.
          mask: False (n,) for those not to count.
          known: What `known` returned; without an image none is right.
        """
        voters = len(known[1])
        return int(self._right(x, label, mask, *known, k=nearest_of(voters))) if voters else 0


def voting(config: FrozenConfigDict, train: Readable | None, evaluation: Readable) -> np.ndarray:
    """The indices (m,) of the training images that vote in a run, ascending.

    There are none where the config asks for none, or the images of one of the splits do not have a
    class each.

    Args:
      config: The config of the run.
      train: The training images; None: none of them votes.
      evaluation: The images for which they vote.
    """
    splits = [evaluation] if train is None else [evaluation, train]
    with_class = all(split.num_classes and not split.multilabel for split in splits)
    if train is None or not config.eval.knn_images or not with_class:
        return np.zeros(0, np.int64)
    candidates = np.arange(len(train))
    if any(overrides.get(config, f"data.{key}") is not None for key in rules.LABELS):
        candidates = np.flatnonzero(train.source.labels() >= 0)
    return candidates[evenly_spaced(candidates, config.eval.knn_images)]  # type: ignore[arg-type]


def voters(
    config: FrozenConfigDict,
    train: Readable | None,
    evaluation: Readable,
    *,
    model: SimCLR,
    mesh: Mesh,
    images: Callable[..., Iterator[dict[str, np.ndarray]]],
) -> Voters | None:
    """The voters of a run; None where no image votes, see `voting`.

    Args:
      config: The config of the run.
      train: The training images; None: there are no voters.
      evaluation: The images for which they vote.
      model: The network.
      mesh: The mesh of the devices.
      images: A function that opens the batches of a split, `data.pipeline.eval_batches` with the
        other arguments.
    """
    chosen = voting(config, train, evaluation)
    if train is None or not len(chosen):
        return None
    opened = partial(images, train, order=chosen)
    return Voters(model=model, mesh=mesh, images=opened, classes=train.num_classes)


def nearest_of(voters: int) -> int:
    """The number of neighbours of an image that vote: `NEIGHBOURS`, unless they are too many.

    >>> nearest_of(400), nearest_of(399), nearest_of(3)
    (200, 39, 1)

    Args:
      voters: The number of images that have a vote.
    """
    return neighbours.few(voters) if neighbours.too_many(NEIGHBOURS, voters) else NEIGHBOURS


def represent(
    variables: Any, batch: dict[str, jax.Array], *, model: SimCLR
) -> tuple[jax.Array, jax.Array]:
    """The representations (N, F) of images, and their labels, -1 where the mask is False.

    Args:
      variables: The weights, {"params", "batch_stats"}.
      batch: The images, their labels, and "mask".
      model: The module.
    """
    outputs: Any = model.apply(variables, to_float(batch["image"]), train=False)
    return outputs.h, jnp.where(batch["mask"], batch["label"], -1)


def right(
    x: jax.Array,
    label: jax.Array,
    mask: jax.Array,
    known: jax.Array,
    known_labels: jax.Array,
    *,
    classes: int,
    k: int,
) -> jax.Array:
    """The number of images for whose class most votes of their k nearest neighbours are.

    Args:
      x: The representations (n, F) of the images.
      label: Their labels (n,), int; -1: none, which is not counted.
      mask: False (n,) for those not to count.
      known: The representations (m, F) of the voters.
      known_labels: Their labels (m,), int.
      classes: The number of classes.
      k: The number of neighbours that vote.
    """
    unit, others = losses.l2_normalize(x), losses.l2_normalize(known)
    similarity = jnp.matmul(unit, others.T, precision=jax.lax.Precision.HIGHEST)
    labels = jnp.broadcast_to(known_labels, similarity.shape)
    similarity, labels = neighbours.nearest(similarity, labels, k=k)
    weight = neighbours.weights(similarity, neighbours.TEMPERATURE)
    chosen = neighbours.votes(weight, labels, classes=classes).argmax(axis=1)
    return jnp.sum(mask & (label >= 0) & (chosen == label))

"""Linear classifiers that are trained side by side, by SGD on the same batches of features.

Reference: Chen et al. 2020, appendix B.6 (arXiv 2002.05709).
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from simclr_jax import optim
from simclr_jax.data.order import Order
from simclr_jax.evals.features import Features
from simclr_jax.losses import cross_entropy
from simclr_jax.models.heads import Classifier

SCAN_STEPS = 100  # The largest number of updates between two looks at the losses.
SCAN_BYTES = 2**26  # The bytes of the batches of features that go to the device at a time.
# The loss, as a multiple of that of guessing, from which on a classifier has diverged.
DIVERGED_LOSS = 1e3


class Probe(NamedTuple):
    """A linear classifier, and how its training went.

    Attributes:
      lr: The base learning rate.
      weight_decay: The coefficient of the weight decay.
      params: The parameters, for `logits`.
      loss: The loss on the last batch, with the weight decay, after the last update.
      updates: The number of updates.
      classes: The number C of classes.
    """

    lr: float
    weight_decay: float
    params: Any
    loss: float
    updates: int
    classes: int

    @property
    def guessing(self) -> float:
        """The cross-entropy of guessing."""
        return float(np.log(self.classes))

    @property
    def diverged(self) -> bool:
        """Whether the loss is not finite, or has grown beyond all use.

        Weights that grow at each update need not have reached infinity when the training ends.
        """
        return not self.loss < DIVERGED_LOSS * self.guessing


def train(
    batches: Iterable[Features],
    *,
    settings: Sequence[tuple[float, float]],
    classes: int,
    batch_size: int,
    steps: int,
    seed: int,
) -> list[Probe]:
    """Trains linear classifiers by SGD with Nesterov momentum 0.9, as the authors do.

    The learning rate is a cosine from lr·B/256 to 0, without a warm-up. All classifiers see each
    batch, in one program that goes over several batches on the device. The training ends early if
    all have a loss that is not finite.

    Args:
      batches: The batches of features and labels, in the order of training.
      settings: The base learning rate, and the coefficient wd of ½·wd·‖w‖² in the loss, of each
        classifier.
      classes: The number C of classes.
      batch_size: The number of images of a batch.
      steps: The number of batches.
      seed: The seed of the initialisation, which all share.
    """
    peaks = jnp.array([optim.peak_learning_rate(lr, batch_size, "linear") for lr, _ in settings])
    decays = jnp.array([decay for _, decay in settings])

    def tx(peak: Any) -> optax.GradientTransformation:
        return optim.momentum(optim.warmup_cosine(peak, 0, steps))

    def step(params: Any, state: Any, peak: Any, decay: Any, batch: Features) -> tuple[Any, Any]:
        gradients = jax.grad(loss_of)(params, decay, batch)
        updates, state = tx(peak).update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    @jax.jit
    def go_over(params: Any, state: Any, stacked: Features) -> tuple[Any, Any, jax.Array]:
        def update(carry: tuple[Any, Any], batch: Features) -> tuple[tuple[Any, Any], None]:
            return jax.vmap(partial(step, batch=batch))(*carry, peaks, decays), None

        (params, state), _ = jax.lax.scan(update, (params, state), stacked)
        last = jax.tree.map(lambda rows: rows[-1], stacked)
        return params, state, jax.vmap(partial(loss_of, batch=last))(params, decays)

    params, state, updates = None, None, 0
    for stacked in _stacked(batches):
        if params is None:
            one = Classifier(classes).init(jax.random.key(seed), stacked.x[0])["params"]
            params = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(settings)), one)
            state = jax.vmap(lambda params, peak: tx(peak).init(params))(params, peaks)
        params, state, losses = go_over(params, state, stacked)
        updates += len(stacked.x)
        if not np.isfinite(losses).any():
            break
    found = [jax.tree.map(lambda leaf, k=k: leaf[k], params) for k in range(len(settings))]
    return [
        Probe(*setting, params, float(loss), updates, classes)
        for setting, params, loss in zip(settings, found, losses, strict=True)
    ]


def loss_of(params: Any, decay: Any, batch: Features) -> jax.Array:
    """The cross-entropy of a batch plus the weight decay, ½·wd·‖w‖²."""
    loss, _ = cross_entropy(_apply(params, batch.x), jnp.asarray(batch.labels))
    return loss + decay * 0.5 * optax.tree.norm(params, squared=True)


def _stacked(batches: Iterable[Features]) -> Iterator[Features]:
    """Joins batches of (B, F) and (B,) to (S, B, F) and (S, B), S of them."""
    group: list[Features] = []
    for batch in batches:
        group.append(batch)
        if len(group) == min(SCAN_STEPS, max(1, SCAN_BYTES // batch.x.nbytes)):
            yield Features(*map(np.stack, zip(*group, strict=True)))
            group = []
    if group:
        yield Features(*map(np.stack, zip(*group, strict=True)))


def logits(params: Any, x: np.ndarray, *, batch_size: int = 8192) -> np.ndarray:
    """The logits (n, C) of features.

    Args:
      params: The parameters of a classifier.
      x: The features (n, F) float32.
      batch_size: The number of features that are on the device at a time.
    """
    parts = [
        _apply(params, x[start : start + batch_size]) for start in range(0, len(x), batch_size)
    ]
    return np.concatenate([np.asarray(part) for part in parts])


@jax.jit
def _apply(params: Any, x: jax.Array) -> jax.Array:
    applied: Any = Classifier(params["dense"]["bias"].shape[0]).apply({"params": params}, x)
    return applied


def shuffled(
    features: Features, *, batch_size: int, steps: int, seed: int, rows: np.ndarray | None = None
) -> Iterator[Features]:
    """Yields `steps` batches of features, in a new order in every epoch.

    Args:
      features: The features.
      batch_size: The number of images of a batch.
      steps: The number of batches.
      seed: The seed of the order.
      rows: The numbers of the rows that are used; None: all.
    """
    rows = np.arange(len(features.x)) if rows is None else rows
    order = Order(len(rows), batch_size, seed)
    for step in range(steps):
        index, _ = order.batch(step)
        yield Features(features.x[rows[index]], features.labels[rows[index]])


def num_steps(*, num_examples: int, batch_size: int, epochs: float) -> int:
    """The number of steps of a linear evaluation; see `optim.step_counts`.

    >>> num_steps(num_examples=50_000, batch_size=512, epochs=1.0)
    98
    """
    return optim.step_counts(
        num_examples=num_examples, batch_size=batch_size, epochs=epochs, warmup_epochs=0, steps=None
    )[1]

"""What features know of a transformation: how well it is told from them (the paper's table 3).

Each image, in its evaluation view, is transformed by a draw, and a network with one hidden layer is
trained to tell from the features of the training images what was done; it is tested on those of the
evaluation split. A representation that is invariant to a transformation does not know of it: in the
paper the embedding g(h) knows little of what h knows.

Reference: Chen et al. 2020, section 4.2 and table 3 (arXiv 2002.05709), "MLPs trained on top". Here
they have one hidden layer (ReLU), on features of mean 0 and deviation 1, and are trained by Adam
with a cosine schedule.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epy

from simclr_jax import optim, processes
from simclr_jax.augment.device import to_float
from simclr_jax.augment.transformations import TRANSFORMATIONS, Noise, apply, draw
from simclr_jax.config.rules import Rule, above, at_least
from simclr_jax.data.order import Order
from simclr_jax.data.readable import Readable
from simclr_jax.errors import DivergedError, UserError
from simclr_jax.evals.features import Extractor, Features, finite
from simclr_jax.evals.scores import Tally, subject
from simclr_jax.evals.task import Task
from simclr_jax.losses.measures import cross_entropy

with epy.lazy_imports():
    from sklearn import preprocessing

# The rules of the config section "transform".
RULES: dict[str, Rule] = {
    "transform.of": Rule(
        lambda value: 0 < len(value) == len(set(value)) and set(value) <= set(TRANSFORMATIONS),
        f"a tuple of {', '.join(TRANSFORMATIONS)}, each at most once",
    ),
    "transform.noise_sigma": above(0),
    "transform.hidden": at_least(1),
    "transform.lr": above(0),
    "transform.batch_size": at_least(1),
    "transform.epochs": above(0),
}
BLOCK = 8192  # The number of features that are on the device at a time.


def run(task: Task) -> dict[str, Any]:
    """Tells each transformation from the features; returns the part of result.json.

    Raises:
      UserError: There are too few images to train on.
      DivergedError: A network has diverged.
    """
    keys, accuracies, guesses = task.config.transform, {}, {}
    of = _chosen(task)
    _check_draws(task, of)
    for name in of:
        train, test = features(task, name, "train"), features(task, name, "eval")
        logits = fit(
            train,
            classes=len(TRANSFORMATIONS[name].shares),
            hidden=keys.hidden,
            lr=keys.lr,
            batch_size=keys.batch_size,
            epochs=keys.epochs,
            seed=task.config.seed,
        )
        accuracies[name] = accuracy(logits, test)
        guesses[name] = float((test.labels == np.bincount(train.labels).argmax()).mean())
    return {
        "split": task.test.split,
        "num_examples": len(test.labels),
        "unreadable": len(task.test) - len(test.labels),
        **accuracies,
        "guess": guesses,
    }


def in_words(result: dict[str, Any]) -> str:
    """The accuracies of a result and what they are of, as text.

    >>> found = {"rotation": 0.5, "guess": {"rotation": 0.25}}
    >>> in_words(found | {"num_examples": 8, "dataset": "digits", "layer": "h"})
    'rotation 50.0% (guess 25.0%) on 8 images of digits, layer h'
    """
    left_out = f", {result['unreadable']} unreadable left out" if result.get("unreadable") else ""
    guesses = result["guess"].items()
    told = (f"{name} {result[name]:.1%} (guess {share:.1%})" for name, share in guesses)
    return f"{', '.join(told)} on {subject(result, left_out)}"


def labels_of(task: Task, name: str, split: str) -> np.ndarray:
    """What is done to each image of a split, (n,) int32; see `features` for the arguments."""
    source = task.train if split == "train" else task.test
    return draw(name, len(source), seed=task.config.seed, stream=int(split == "eval"))


def _chosen(task: Task) -> tuple[str, ...]:
    """The transformations that the images can have.

    Raises:
      UserError: There are none.
    """
    of, channels = task.config.transform.of, task.run_config.data.channels
    if channels == 3 or "colour" not in of:
        return of
    reason = f"colour is one of red, green and blue, and the run has data.channels={channels}"
    found = tuple(name for name in of if name != "colour")
    if not found:
        raise UserError(f"config.transform.of={of!r}: {reason}")
    processes.say(f"config.transform.of: colour is left out: {reason}")
    return found


def _check_draws(task: Task, of: Iterable[str]) -> None:
    """Raises UserError where a kind of a transformation is drawn for no training image."""
    for name in of:
        kinds = len(TRANSFORMATIONS[name].shares)
        if len(np.unique(labels_of(task, name, "train"))) < kinds:
            raise UserError(
                f"config.data.train_split={task.run_config.data.train_split!r}: has too few images "
                f"({len(task.train)}) for each of the {kinds} kinds of {name} to be drawn"
            )


def features(task: Task, name: str, split: str) -> Features:
    """The features of the transformed images of a split, with what was done as their labels.

    Args:
      task: The task.
      name: The transformation.
      split: The split, 'train' or 'eval'.
    """
    source = task.train if split == "train" else task.test
    seed, sigma = task.config.seed, task.config.transform.noise_sigma
    labels = labels_of(task, name, split)
    key = jax.random.fold_in(jax.random.key(seed), int(split == "eval"))
    transformed = Transformed(task.extractor, name, labels, key=key, sigma=sigma)
    about = [name, split, seed, *([sigma] if name == "noise" else [])]
    return task.features(source, transformed, transform=f"eval_view, then {about}")


class Transformed:
    """Computes the features of transformed images.

    Args:
      extractor: The extractor of the features.
      name: The transformation.
      labels: What is done to each image of the source, (n,) int32.
      key: The key of the noise.
      sigma: The standard deviation of the noise.
    """

    def __init__(
        self, extractor: Extractor, name: str, labels: np.ndarray, *, key: jax.Array, sigma: float
    ):
        self._extractor = extractor
        self._labels = labels

        @jax.jit
        def change(images: jax.Array, index: jax.Array, labels: jax.Array) -> jax.Array:
            return apply(name, to_float(images), labels[index], Noise(key, index, sigma))

        self._change = change

    def evaluation(self, source: Readable) -> Iterator[Features]:
        """Yields the features of every readable image, in order, with what was done to it.

        Raises:
          DivergedError: Features are not finite.
        """

        def change(images: jax.Array, index: jax.Array) -> jax.Array:
            return self._change(images, index, self._labels)

        start = 0
        for batch, readable in self._extractor.batches(source, change):
            labels = self._labels[start : start + len(readable)]
            start += len(readable)
            yield finite(Features(batch.x[readable], labels[readable]), self._extractor.layer)


class MLP(nn.Module):
    """A network with one hidden layer.

    Attributes:
      mean: The mean (F,) of the features.
      deviation: Their standard deviation (F,).
      hidden: The width of the hidden layer.
      classes: The number of classes.
    """

    mean: Any
    deviation: Any
    hidden: int
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The logits (n, classes) of features (n, F)."""
        x = (x.astype(jnp.float32) - self.mean[None, :]) / self.deviation[None, :]
        return nn.Dense(self.classes)(nn.relu(nn.Dense(self.hidden)(x)))


def fit(
    train: Features, *, classes: int, hidden: int, lr: float, batch_size: int, epochs: float,
    seed: int,
) -> Callable[[np.ndarray], jax.Array]:  # fmt: skip
    """Trains a network with one hidden layer by Adam, with a cosine schedule from lr to 0.

    Args:
      train: The features (m, F) and their labels (m,).
      classes: The number of classes.
      hidden: The width of the hidden layer.
      lr: The first learning rate.
      batch_size: The number of features of a batch.
      epochs: The length of the training in epochs.
      seed: The seed of the initialisation and of the order.

    Returns:
      A function from features (n, F) to logits (n, classes).

    Raises:
      DivergedError: The parameters are not finite.
    """
    _, steps = optim.step_counts(
        num_examples=len(train.x), batch_size=batch_size, epochs=epochs, warmup_epochs=0, steps=None
    )
    model = MLP(*spread(train.x), hidden=hidden, classes=classes)
    tx = optax.adam(optax.cosine_decay_schedule(lr, steps))

    def loss_of(params: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        logits: Any = model.apply(params, x)
        return cross_entropy(logits, labels)[0]

    @jax.jit
    def step(params: Any, opt_state: Any, x: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
        updates, opt_state = tx.update(jax.grad(loss_of)(params, x, labels), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params = model.init(jax.random.key(seed), train.x[:1])
    opt_state = tx.init(params)
    order = Order(len(train.x), batch_size, seed)
    for number in range(steps):
        index, _ = order.batch(number)
        params, opt_state = step(params, opt_state, train.x[index], train.labels[index])
    if not np.isfinite(optax.tree.norm(params)):
        raise DivergedError(
            f"the network has diverged in {steps} steps with config.transform.lr={lr}; lower it"
        )
    return jax.jit(partial(model.apply, params))


def spread(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation (F,) float32 of features; 1 where they do not vary.

    Args:
      x: The features (m, F), of which a block is read at a time.
    """
    scaler = preprocessing.StandardScaler()
    for start in range(0, len(x), BLOCK):
        scaler.partial_fit(x[start : start + BLOCK].astype(np.float64))
    return scaler.mean_.astype(np.float32), scaler.scale_.astype(np.float32)


def accuracy(logits: Callable[[np.ndarray], jax.Array], test: Features) -> float:
    """The fraction of the features that are classified right.

    Args:
      logits: The function from features (n, F) to logits (n, C).
      test: The features and their labels.
    """
    tally = Tally()
    for start in range(0, len(test.x), BLOCK):
        rows = slice(start, start + BLOCK)
        tally.add(np.asarray(logits(test.x[rows])), test.labels[rows])
    return tally.accuracies()["top1"]

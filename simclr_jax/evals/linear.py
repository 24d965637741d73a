"""Linear evaluation: a linear classifier on frozen features.

Reference: Chen et al. 2020, section 2.3 and appendix B.6 (arXiv 2002.05709).
"""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epy

from simclr_jax import optim
from simclr_jax.config import rules
from simclr_jax.config.rules import above, anything, at_least
from simclr_jax.data.labels import available, few
from simclr_jax.data.order import Order, permutation
from simclr_jax.errors import ArgumentError, DivergedError
from simclr_jax.evals.features import Features
from simclr_jax.evals.scores import accuracies, mean_and_deviation
from simclr_jax.evals.scores import in_words as scores_in_words
from simclr_jax.evals.task import Task
from simclr_jax.losses import cross_entropy
from simclr_jax.models.heads import Classifier

with epy.lazy_imports():
    from sklearn import linear_model, preprocessing

_log = logging.getLogger(__name__)

FIT_BYTES = 2**28  # The bytes of features whose mean and deviation are computed at a time.
CHECK_STEPS = 100  # The updates of a classifier between two looks at its loss.
# The loss, as a multiple of that of guessing, from which on a classifier has diverged.
DIVERGED_LOSS = 1e3


class FitError(Exception):
    """A classifier that has diverged; the message says after which update."""


# The rules of the config section "linear".
RULES = {
    "linear.lr": above(0),
    "linear.batch_size": at_least(1),
    "linear.epochs": above(0),
    "linear.weight_decay": at_least(0),
    "linear.augment": anything("true or false"),
    "linear.labels_per_class": at_least(1),
    "linear.draws": at_least(1),
    "linear.c": above(0),
}


def run(task: Task) -> dict[str, Any]:
    """Evaluates a network by a linear classifier; returns its part of result.json.

    The classifier is fitted to all labels, or to random draws of few.
    """
    task.check_labels()
    found = _of_all_labels if task.config.linear.labels_per_class is None else _of_few_labels
    return found(task)


def _of_all_labels(task: Task) -> dict[str, Any]:
    keys, seed = task.config.linear, task.config.seed
    steps = num_steps(num_examples=len(task.train), batch_size=keys.batch_size, epochs=keys.epochs)
    if keys.augment:
        batches = task.extractor.augmented(
            task.train, batch_size=keys.batch_size, steps=steps, seed=seed
        )
    else:
        features = task.features(task.train)
        batches = shuffled(features, batch_size=keys.batch_size, steps=steps, seed=seed)
    try:
        params = fit(
            batches,
            classes=task.train.num_classes,
            learning_rate=cosine(keys.lr, batch_size=keys.batch_size, steps=steps),
            weight_decay=keys.weight_decay,
            seed=seed,
        )
    except FitError as error:
        raise DivergedError(
            f"the classifier has diverged ({error} of {steps}) with config.linear.lr={keys.lr}, "
            f"config.linear.weight_decay={keys.weight_decay}; lower one of them"
        ) from error
    test = task.features(task.test)
    return {
        **task.tested(test),
        **accuracies(logits(params, test.x), test.labels),
        "labels_per_class": None,
        "lr": keys.lr,
        "weight_decay": keys.weight_decay,
        "epochs": keys.epochs,
        "batch_size": keys.batch_size,
    }


def in_words(result: dict[str, Any]) -> str:
    """The accuracies of a result and what they are of, as text."""
    count = result.get("labels_per_class")
    labels = f"{count} label{'s' if count > 1 else ''} a class" if count else "all labels"
    return f"{scores_in_words(result)}, {labels}"


def _of_few_labels(task: Task) -> dict[str, Any]:
    keys = task.config.linear
    train, test = task.features(task.train), task.features(task.test)
    try:
        results = few_labels(
            train,
            test,
            classes=task.train.num_classes,
            per_class=keys.labels_per_class,
            draws=keys.draws,
            c=keys.c,
            seed=task.config.seed,
        )
    except ArgumentError as error:
        raise rules.wrong("linear.labels_per_class", error.value, error.reason) from error
    return {
        **task.tested(test),
        **mean_and_deviation(results),
        "labels_per_class": keys.labels_per_class,
        "draws": [result["top1"] for result in results],
    }


def fit(
    batches: Iterable[Features],
    *,
    classes: int,
    learning_rate: optax.Schedule,
    weight_decay: float,
    seed: int,
) -> Any:
    """Trains a linear classifier by SGD with Nesterov momentum 0.9, as the authors do.

    Args:
      batches: The batches of features and labels, in the order of training.
      classes: The number C of classes.
      learning_rate: The learning rate by step.
      weight_decay: The coefficient wd of ½·wd·‖w‖² in the loss, at least 0.
      seed: The seed of the initialisation.

    Returns:
      The parameters of the classifier, for `logits`.

    Raises:
      FitError: The parameters are not finite, or the loss has grown beyond all use.
    """
    tx = optim.momentum(learning_rate)
    model = Classifier(classes)

    def loss_of(params: Any, x: Any, labels: Any) -> jax.Array:
        logits: Any = model.apply({"params": params}, x)
        loss, _ = cross_entropy(logits, labels)
        return loss + weight_decay * 0.5 * optax.tree.norm(params, squared=True)

    @jax.jit
    def step(params: Any, opt_state: Any, x: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
        gradients = jax.grad(loss_of)(params, x, labels)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params: Any = None
    for number, (x, labels) in enumerate(batches, 1):
        if params is None:
            params = model.init(jax.random.key(seed), x)["params"]
            opt_state = tx.init(params)
        params, opt_state = step(params, opt_state, x, labels)
        if number % CHECK_STEPS == 0 and not jnp.isfinite(loss_of(params, x, labels)):
            break
    # Weights that grow at each update need not have reached infinity when the training ends.
    loss, guessing = float(loss_of(params, x, labels)), np.log(classes)
    if not loss < DIVERGED_LOSS * guessing:
        raise FitError(f"a loss of {loss:.3g} after update {number}")
    if loss > guessing:
        _log.warning(
            "the classifier ends with a loss of %.3g on its last batch, more than the %.3g of "
            "guessing: its learning rate or weight decay is too high", loss, guessing,
        )  # fmt: skip
    return params


def logits(params: Any, x: np.ndarray, *, batch_size: int = 8192) -> np.ndarray:
    """The logits (n, C) of features.

    Args:
      params: The parameters of the classifier, from `fit`.
      x: The features (n, F) float32.
      batch_size: The number of features that are on the device at a time.
    """
    model = Classifier(params["dense"]["bias"].shape[0])
    apply = jax.jit(lambda x: model.apply({"params": params}, x))
    parts = [apply(x[start : start + batch_size]) for start in range(0, len(x), batch_size)]
    return np.concatenate([np.asarray(part) for part in parts])


def shuffled(features: Features, *, batch_size: int, steps: int, seed: int) -> Iterator[Features]:
    """Yields `steps` batches of features, in a new order in every epoch."""
    order = Order(len(features.x), batch_size, seed)
    for step in range(steps):
        index, _ = order.batch(step)
        yield Features(features.x[index], features.labels[index])


def few_labels(
    train: Features,
    test: Features,
    *,
    classes: int,
    per_class: int,
    draws: int,
    c: float,
    seed: int,
) -> list[dict[str, float]]:
    """The accuracy of L2-regularised logistic regression on random draws of few labels.

    Features are standardised by the whole training split, which needs no labels for that.

    Args:
      train: The training images' features (m, F) and labels.
      test: The test images' features (n, F) and labels.
      classes: The number of classes.
      per_class: The number of labels that are drawn of each class.
      draws: The number of draws.
      c: The inverse strength of the regularisation of the summed loss (scikit-learn's C), above 0.
      seed: The seed of the draws.

    Returns:
      The accuracies of each draw; see `accuracies`.

    Raises:
      ArgumentError: A class has fewer than `per_class` examples.
    """
    there = available(train.labels, classes)
    if there.min() < per_class:
        reason = f"at most {there.min()}, the examples of class {there.argmin()}"
        raise ArgumentError("per_class", per_class, reason)
    scaler = preprocessing.StandardScaler()
    size = max(1, FIT_BYTES // train.x[0].nbytes)  # It makes copies of what it is given.
    for start in range(0, len(train.x), size):
        scaler.partial_fit(train.x[start : start + size])
    test_x = scaler.transform(test.x)
    results = []
    for draw in range(draws):
        order = permutation(len(train.labels), seed=seed, stream=draw)
        rows = few(train.labels, np.full(classes, per_class), order)
        model = linear_model.LogisticRegression(C=c, max_iter=1000).fit(
            scaler.transform(train.x[rows]), train.labels[rows]
        )
        scores = model.decision_function(test_x)
        if scores.ndim == 1:  # With two classes scikit-learn returns the score of the second.
            scores = np.stack([-scores, scores], axis=1)
        results.append(accuracies(scores, test.labels))
    return results


def cosine(lr: float, *, batch_size: int, steps: int) -> optax.Schedule:
    """The authors' schedule: a cosine from lr·B/256 to 0, without a warm-up.

    >>> round(float(cosine(0.1, batch_size=512, steps=10)(0)), 6)
    0.2

    Args:
      lr: The base learning rate.
      batch_size: The number B of images of a global batch.
      steps: The number of steps.
    """
    return optim.warmup_cosine(optim.peak_learning_rate(lr, batch_size, "linear"), 0, steps)


def num_steps(*, num_examples: int, batch_size: int, epochs: float) -> int:
    """The number of steps of a linear evaluation; see `optim.step_counts`.

    >>> num_steps(num_examples=50_000, batch_size=512, epochs=1.0)
    98
    """
    return optim.step_counts(
        num_examples=num_examples, batch_size=batch_size, epochs=epochs, warmup_epochs=0, steps=None
    )[1]

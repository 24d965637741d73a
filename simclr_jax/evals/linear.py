"""Linear evaluation: a linear classifier on frozen features.

Reference: Chen et al. 2020, section 2.3 and appendix B.6 (arXiv 2002.05709).
"""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from etils import epy

from simclr_jax import optim
from simclr_jax.config import rules
from simclr_jax.config.rules import above, anything, at_least
from simclr_jax.data.order import Order, permutation
from simclr_jax.errors import ArgumentError
from simclr_jax.evals.features import Features
from simclr_jax.evals.scores import accuracies, mean_and_deviation
from simclr_jax.evals.task import Task
from simclr_jax.losses import cross_entropy
from simclr_jax.models.heads import Classifier

with epy.lazy_imports():
    from sklearn import linear_model, preprocessing

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
    params = fit(
        batches,
        classes=task.train.num_classes,
        learning_rate=cosine(keys.lr, batch_size=keys.batch_size, steps=steps),
        weight_decay=keys.weight_decay,
        seed=seed,
    )
    test = task.features(task.test)
    return {**task.tested(test), **accuracies(logits(params, test.x), test.labels)}


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
    """
    tx = optim.momentum(learning_rate)
    model = Classifier(classes)

    @jax.jit
    def step(params: Any, opt_state: Any, x: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
        def loss_fn(params: Any) -> jax.Array:
            logits: Any = model.apply({"params": params}, x)
            loss, _ = cross_entropy(logits, labels)
            return loss + weight_decay * 0.5 * optax.tree.norm(params, squared=True)

        updates, opt_state = tx.update(jax.grad(loss_fn)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params: Any = None
    for x, labels in batches:
        if params is None:
            params = model.init(jax.random.key(seed), x)["params"]
            opt_state = tx.init(params)
        params, opt_state = step(params, opt_state, x, labels)
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
    scaler = preprocessing.StandardScaler().fit(train.x)
    train_x, test_x = scaler.transform(train.x), scaler.transform(test.x)
    results = []
    for draw in range(draws):
        order = permutation(len(train.labels), seed=seed, stream=draw)
        chosen = []
        for label in range(classes):
            rows = order[train.labels[order] == label][:per_class]
            if len(rows) < per_class:
                reason = f"at most {len(rows)}, the examples of class {label}"
                raise ArgumentError("per_class", per_class, reason)
            chosen.append(rows)
        rows = np.concatenate(chosen)
        model = linear_model.LogisticRegression(C=c, max_iter=1000).fit(
            train_x[rows], train.labels[rows]
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

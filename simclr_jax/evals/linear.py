"""Linear evaluation: a linear classifier on frozen features.

Reference: Chen et al. 2020, section 2.3 and appendix B.5 (arXiv 2002.05709).
"""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from simclr_jax import optim
from simclr_jax.data.order import Order, permutation
from simclr_jax.evals.features import Features
from simclr_jax.losses import cross_entropy
from simclr_jax.models.heads import Classifier


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
      batches: of features and labels, in the order of training.
      classes: C.
      learning_rate: by step.
      weight_decay: of ½·wd·‖w‖² in the loss.
      seed: of the initialisation.

    Returns:
      The classifier's parameters, for `logits`.
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
    """Logits (n, C) of features (n, F)."""
    model = Classifier(params["dense"]["bias"].shape[0])
    apply = jax.jit(lambda x: model.apply({"params": params}, x))
    parts = [apply(x[start : start + batch_size]) for start in range(0, len(x), batch_size)]
    return np.concatenate([np.asarray(part) for part in parts])


def shuffled(features: Features, *, batch_size: int, steps: int, seed: int) -> Iterator[Features]:
    """Batches of cached features, every epoch in a new order."""
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
    """Accuracy with few labels: L2-regularised logistic regression, once per random draw.

    Features are standardised by the whole training split, whose images need no labels.

    Args:
      per_class: labels drawn of each class.
      draws: how often.
      c: the inverse strength of the regularisation, on the sum over examples (scikit-learn's C).
      seed: of the draws.

    Returns:
      `accuracies` of each draw.

    Raises:
      ValueError: a class has fewer than `per_class` examples.
    """
    scaler = StandardScaler().fit(train.x)
    train_x, test_x = scaler.transform(train.x), scaler.transform(test.x)
    results = []
    for draw in range(draws):
        order = permutation(len(train.labels), seed=seed, stream=draw)
        chosen = []
        for label in range(classes):
            rows = order[train.labels[order] == label][:per_class]
            if len(rows) < per_class:
                raise ValueError(f"at most {len(rows)}, the examples of class {label}")
            chosen.append(rows)
        rows = np.concatenate(chosen)
        model = LogisticRegression(C=c, max_iter=1000).fit(train_x[rows], train.labels[rows])
        scores = model.decision_function(test_x)
        if scores.ndim == 1:  # of two classes scikit-learn scores one
            scores = np.stack([-scores, scores], axis=1)
        results.append(accuracies(scores, test.labels))
    return results


def accuracies(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """{"top1", "top5"}: how often the label is among the highest 1 and 5 of scores (n, C)."""
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    hits = ranked == labels[:, None]
    return {"top1": float(hits[:, 0].mean()), "top5": float(hits.any(axis=1).mean())}


def cosine(lr: float, *, batch_size: int, steps: int) -> optax.Schedule:
    """The authors' schedule: peak lr·B/256, no warm-up, cosine to 0."""
    return optim.warmup_cosine(optim.peak_learning_rate(lr, batch_size, "linear"), 0, steps)


def num_steps(*, num_examples: int, batch_size: int, epochs: float) -> int:
    """Steps of a linear evaluation."""
    return optim.step_counts(
        num_examples=num_examples, batch_size=batch_size, epochs=epochs, warmup_epochs=0, steps=None
    )[1]


def spread(results: list[dict[str, float]]) -> dict[str, float]:
    """Mean and standard deviation over draws, of each accuracy."""
    table = {key: np.array([result[key] for result in results]) for key in results[0]}
    means = {key: float(values.mean()) for key, values in table.items()}
    return means | {f"{key}_std": float(values.std()) for key, values in table.items()}

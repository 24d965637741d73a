"""Linear evaluation: a linear classifier on frozen features.

Reference: Chen et al. 2020, section 2.3 and appendix B.6 (arXiv 2002.05709).
"""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from etils import epy
from jax.sharding import Mesh

from simclr_jax import mesh as meshes
from simclr_jax.config import rules
from simclr_jax.config.rules import above, anything, at_least, some
from simclr_jax.data.labels import available, few
from simclr_jax.data.order import permutation
from simclr_jax.data.readable import Readable
from simclr_jax.data.source import FEW_LABELS
from simclr_jax.errors import ArgumentError, DivergedError
from simclr_jax.evals import validation
from simclr_jax.evals.features import Features
from simclr_jax.evals.passes import Rows
from simclr_jax.evals.probes import Probe, logits, num_steps, shuffled, train
from simclr_jax.evals.regression import Regressions
from simclr_jax.evals.scores import Tally, accuracies, mean_and_deviation
from simclr_jax.evals.scores import in_words as scores_in_words
from simclr_jax.evals.task import Task
from simclr_jax.run.progress import note

with epy.lazy_imports():
    from sklearn import preprocessing

_log = logging.getLogger(__name__)

FIT_BYTES = 2**28  # The bytes of features whose mean and deviation are computed at a time.


# The rules of the config section "linear".
RULES = {
    "linear.lr": some(above(0)),
    "linear.batch_size": at_least(1),
    "linear.epochs": above(0),
    "linear.weight_decay": some(at_least(0)),
    "linear.held_out": rules.RUN["data.held_out"],
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
    """The result of the classifier of one setting: of several, that which validation chooses.

    It is trained on all training images, as if its setting alone had been given.
    """
    keys = task.config.linear
    for key in ("lr", "weight_decay"):
        if keys[key] is None:
            raise rules.wrong(f"linear.{key}", None, RULES[f"linear.{key}"].allowed)
    rates, decays = (map(float, rules.values_of(keys[key])) for key in ("lr", "weight_decay"))
    settings = list(itertools.product(rates, decays))
    test = task.features(task.test)
    setting, chosen = (settings[0], {}) if len(settings) == 1 else _choose(task, settings)
    if keys.augment:
        number, batches = len(task.train), partial(_augmented, task, task.train)
    else:
        features = task.features(task.train)
        task.check_examples(features.labels, test.labels)
        number, batches = len(features.x), partial(shuffled, features)
    (probe,) = _train(task, [setting], number, batches)
    if probe.loss > probe.guessing:
        _log.warning(
            "the classifier ends with a loss of %.3g on its last batch, more than the %.3g of "
            "guessing: its learning rate or weight decay is too high", probe.loss, probe.guessing,
        )  # fmt: skip
    return {
        **task.tested(test),
        **accuracies(logits(probe.params, test.x), test.labels),
        "labels_per_class": None,
        "lr": probe.lr,
        "weight_decay": probe.weight_decay,
        "epochs": keys.epochs,
        "batch_size": keys.batch_size,
        **chosen,
    }


def _choose(
    task: Task, settings: list[tuple[float, float]]
) -> tuple[tuple[float, float], dict[str, Any]]:
    """The first setting that is right most often on validation images, and the result's part of it.

    All settings are trained side by side, on the training images that are not for validation.
    """
    keys = task.config.linear
    if keys.augment:
        train, held, name = validation.divide(task, keys.held_out)
        number, batches = len(train), partial(_augmented, task, train)
        parts = task.extractor.evaluation(held)
    else:
        data = validation.choose(task, key="linear.held_out", held_out=keys.held_out)
        features, name = data.parts[0], data.name
        rows = np.flatnonzero(data.train[: len(features.x)])
        number, batches = len(rows), partial(shuffled, features, rows=rows)
        parts = data.to_choose_by()
    probes = _train(task, settings, number, batches)
    tallies = [Tally() for _ in probes]
    for x, labels in parts:
        for probe, tally in zip(probes, tallies, strict=True):
            if not probe.diverged:
                tally.add(logits(probe.params, x), labels)
    top1 = [
        None if probe.diverged else tally.accuracies()["top1"]
        for probe, tally in zip(probes, tallies, strict=True)
    ]
    best = int(np.argmax([-1.0 if each is None else each for each in top1]))
    tried = [
        {"lr": probe.lr, "weight_decay": probe.weight_decay, "top1": each}
        for probe, each in zip(probes, top1, strict=True)
    ]
    count = {"settings": len(tried), "diverged": top1.count(None)}
    return settings[best], {"validation": name, **count, "tried": tried}


def _augmented(task: Task, source: Readable, **options: Any) -> Iterator[Features]:
    return task.extractor.augmented(source, **options)


def _train(
    task: Task,
    settings: list[tuple[float, float]],
    number: int,
    batches: Callable[..., Iterable[Features]],
) -> list[Probe]:
    """Trains classifiers, and says which have diverged.

    Args:
      task: The task.
      settings: The learning rate and the weight decay of each classifier.
      number: The number of images that they are trained on.
      batches: A function from batch_size, steps and seed to the batches.

    Raises:
      DivergedError: All have.
    """
    keys, seed = task.config.linear, task.config.seed
    steps = num_steps(num_examples=number, batch_size=keys.batch_size, epochs=keys.epochs)
    common: dict[str, Any] = {"batch_size": keys.batch_size, "steps": steps, "seed": seed}
    count = "a classifier" if len(settings) == 1 else f"{len(settings)} classifiers"
    note(f"training {count} on {number:,} images, {steps:,} steps")
    probes = train(batches(**common), settings=settings, classes=task.train.num_classes, **common)
    lines = [
        f"the classifier has diverged (a loss of {probe.loss:.3g} after update {probe.updates} of "
        f"{steps}) with config.linear.lr={probe.lr}, "
        f"config.linear.weight_decay={probe.weight_decay}"
        for probe in probes
        if probe.diverged
    ]
    if len(lines) == len(probes):
        others = f", and so have all {len(lines)} settings" if len(lines) > 1 else ""
        raise DivergedError(f"{lines[0]}{others}; lower one of them")
    for line in lines:
        _log.warning("%s, and is left out", line)
    return probes


def in_words(result: dict[str, Any]) -> str:
    """The accuracies of a result and what they are of, as text.

    >>> found = {"top1": 0.5, "top5": 1.0, "num_examples": 8, "dataset": "digits"}
    >>> chosen = {"lr": 0.1, "weight_decay": 0.0, "settings": 6, "validation": "9 of val"}
    >>> in_words({**found, **chosen, "diverged": 1}).partition(", all labels, ")[2]
    'lr 0.1 and weight decay 0.0 of 6 by 9 of val, 1 diverged'
    """
    count = result.get("labels_per_class")
    labels = f", {count} label{'s' if count > 1 else ''} a class" if count else ", all labels"
    if "train_split" in result and not count:
        labels = ""  # The choice among the training labels is in the line already.
    line = f"{scores_in_words(result)}{labels}"
    if "settings" in result:
        chosen = f"lr {result['lr']} and weight decay {result['weight_decay']}"
        line += f", {chosen} of {result['settings']} by {result['validation']}"
        line += f", {result['diverged']} diverged" if result["diverged"] else ""
    return line


def _of_few_labels(task: Task) -> dict[str, Any]:
    keys, classes = task.config.linear, task.train.num_classes
    if len(task.train) <= FEW_LABELS:  # Before anything is computed.
        source = task.train.source
        _check_enough(source.labels(), classes, keys.labels_per_class, source.class_names)
    train, test = task.features(task.train), task.features(task.test)
    note(f"fitting classifiers to {keys.draws} draws of {keys.labels_per_class} labels a class")
    results = few_labels(
        train,
        test,
        classes=classes,
        per_class=keys.labels_per_class,
        draws=keys.draws,
        c=keys.c,
        seed=task.config.seed,
        mesh=meshes.make(),
    )
    return {
        **task.tested(test),
        **mean_and_deviation(results),
        "labels_per_class": keys.labels_per_class,
        "draws": [result["top1"] for result in results],
    }


def _check_enough(
    labels: np.ndarray, classes: int, per_class: int, names: Sequence[str] = ()
) -> None:
    """Raises ArgumentError where a class has fewer than `per_class` examples."""
    there = available(labels, classes)
    if there.min() < per_class:
        fewest = int(there.argmin())
        name = repr(names[fewest]) if names else fewest
        reason = f"must be at most {there.min()}, the examples of class {name}"
        raise ArgumentError("per_class", per_class, reason)


def few_labels(
    train: Features,
    test: Features,
    *,
    classes: int,
    per_class: int,
    draws: int,
    c: float,
    seed: int,
    mesh: Mesh,
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
      mesh: The mesh of the devices.

    Returns:
      The accuracies of each draw; see `accuracies`.

    Raises:
      ArgumentError: A class has fewer than `per_class` examples.
    """
    _check_enough(train.labels, classes, per_class)
    scaler = preprocessing.StandardScaler()
    size = max(1, FIT_BYTES // train.x[0].nbytes)  # It makes copies of what it is given.
    for start in range(0, len(train.x), size):
        scaler.partial_fit(train.x[start : start + size])
    drawn = [
        few(train.labels, np.full(classes, per_class), order)
        for order in (permutation(len(train.labels), seed=seed, stream=k) for k in range(draws))
    ]
    of = np.repeat(np.arange(draws), classes * per_class)  # The draw of each row.
    rows = np.concatenate(drawn)
    features = Features(scaler.transform(train.x[rows]), train.labels[rows])
    regressions = Regressions(Rows([features], columns=classes, mesh=mesh), classes)
    # scikit-learn's penalty of two classes is that of the difference of their weights.
    l2 = np.array([(2 if classes == 2 else 1) / c])
    fits = [regressions.fit((of == k).astype(np.float32), l2) for k in range(draws)]
    tallies = [Tally() for _ in fits]
    for start in range(0, len(test.x), size):
        x, labels = (
            scaler.transform(test.x[start : start + size]),
            test.labels[start : start + size],
        )
        for fit, tally in zip(fits, tallies, strict=True):
            tally.add(x @ fit.kernel[0] + fit.bias[0], labels)
    return [tally.accuracies() for tally in tallies]

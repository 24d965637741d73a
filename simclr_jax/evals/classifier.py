"""The run's own classifier on any images: its accuracy, and what it predicts for each of them.

The classifier is the one that the run has trained: beside a contrastive loss, with a gradient that
stops before the encoder, or through the encoder.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import numpy as np
from etils import epy

from simclr_jax import processes
from simclr_jax.config import sources
from simclr_jax.config.rules import Rule, one_of
from simclr_jax.errors import ArgumentError, UserError
from simclr_jax.evals import parquet
from simclr_jax.evals.features import Features, finite
from simclr_jax.evals.metrics import class_accuracies, mean_of_classes
from simclr_jax.evals.scores import Tally, subject
from simclr_jax.evals.scores import in_words as scores_in_words
from simclr_jax.evals.task import Task
from simclr_jax.run.progress import Count

with epy.lazy_imports():
    import pyarrow as pa

# The rules of the config section "classifier", and of what leaves no choice: there are no files of
# features.
RULES: dict[str, Rule] = {
    "classifier.split": one_of("eval", "train", "all"),
    "features.layer": one_of("logits"),
    "features.dtype": one_of("float32"),
}
FILE = "predictions.parquet"  # The name of the file of predictions.


def run(task: Task) -> dict[str, Any]:
    """Applies the classifier to one split or to both; returns its part of result.json.

    Raises:
      UserError: The images have no labels, or labels of other classes than the classifier's.
    """
    opened = task.open(task.config.classifier.split)
    labelled = any(source.num_classes for source in opened.values())
    names = _check_classes(task) if labelled else None
    if not labelled and task.config.data.num_classes != 0:
        key = "train_split" if task.config.classifier.split == "train" else "eval_split"
        raise UserError(
            f"config.data.{key}={task.run_config.data[key]!r}: has no labels to compare with; set "
            "config.data.num_classes=0 for the predictions alone"
        )
    count = Count("classified", sum(map(len, opened.values())), sys.stderr)
    scores, total = Scores(task.network.model.classes), 0
    folder = task.folder
    with contextlib.ExitStack() as stack:
        made = []
        if folder is not None:
            made = stack.enter_context(parquet.created(folder, FILE, key="--to"))
        written = [parquet.Table(file) for file in made]
        for rows in parquet.rows(task.extractor, opened, count):
            finite(Features(rows.x, rows.labels), "logits")
            scores.add(rows.x, rows.labels)
            total += len(rows.x)
            for table in written if len(rows.x) else []:  # Without rows columns have no types.
                columns = parquet.columns(rows, labelled=labelled)
                columns["prediction"] = pa.array(rows.x.argmax(axis=1), pa.int32())
                columns["probability"] = pa.array(softmax(rows.x).max(axis=1), pa.float32())
                table.write(columns)
        for table in written:
            table.close()
    count.end()
    return {
        "split": ", ".join(source.split for source in opened.values()),
        "num_examples": scores.tally.count if labelled else total,
        "num_classes": task.network.model.classes,
        "unreadable": count.done - total,
        "unlabelled": total - scores.tally.count if labelled else 0,
        "class_names": names or None,
        **(scores.result() if labelled else {}),
        "files": [] if folder is None else [str(folder / FILE)],
    }


def in_words(result: dict[str, Any]) -> str:
    """The accuracies of a result and what they are of, as text; without labels, their number.

    >>> in_words({"num_examples": 8, "dataset": "folder", "layer": "logits"})
    'predictions for 8 images of folder, layer logits'
    """
    if "top1" not in result:
        left_out = f", {result['unreadable']} left out" if result.get("unreadable") else ""
        return f"predictions for {subject(result, left_out)}"
    empty = result["empty_classes"]
    return scores_in_words(result) + (f", {empty} classes without examples" if empty else "")


class Scores:
    """What a classifier gets right, class by class.

    Args:
      classes: The number C of classes.

    Attributes:
      tally: The count of the right predictions.
      confusion: The number (C, C) of the images of each class (row) for which each class (column)
        is predicted.
    """

    def __init__(self, classes: int):
        self.tally = Tally()
        self.confusion = np.zeros((classes, classes), np.int64)

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Counts a batch: logits (n, C) and labels (n,), -1 for an image that is left out."""
        self.tally.add(logits, labels)
        known = labels >= 0
        np.add.at(self.confusion, (labels[known], logits[known].argmax(axis=1)), 1)

    def result(self) -> dict[str, Any]:
        """The scores as JSON.

        Returns:
          "top1" and "top5"; "per_class", the fraction of each class's images that are classified
          right, None for a class without images; "mean_per_class", the mean of these without None;
          "empty_classes", their number; and "confusion".
        """
        per_class = class_accuracies(self.confusion.diagonal(), self.confusion.sum(axis=1))
        return {
            **self.tally.accuracies(),
            "mean_per_class": mean_of_classes(per_class),
            "per_class": per_class,
            "empty_classes": per_class.count(None),
            "confusion": self.confusion.tolist(),
        }


def softmax(logits: np.ndarray) -> np.ndarray:
    """The probabilities (n, C) of classes, from finite logits (n, C).

    >>> softmax(np.array([[0.0, 0.0]])).tolist()
    [[0.5, 0.5]]
    """
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _check_classes(task: Task) -> tuple[str, ...]:
    """The names of the classes of the images, or none, once they are the classifier's.

    Raises:
      UserError: They are not.
    """
    classes, name = task.network.model.classes, task.run_config.data.name
    of_run = _names_of_run(task) if task.network.config.data.name else ()
    names: tuple[str, ...] = ()
    for source in task.sources.values():
        if source.num_classes not in (0, classes):
            raise UserError(
                f"config.data.name={name!r}: {source.split!r} has {source.num_classes} classes, "
                f"and the run's classifier {classes}; name images with the run's classes"
            )
        names = source.source.class_names if source.num_classes else names
        if source.num_classes and names and of_run and names != of_run:
            others = [repr(each) for each in names if each not in of_run]
            lacking = [repr(each) for each in of_run if each not in names]
            differ = "has them in another order"
            if others:
                differ = f"has {_some(others)}, which the run has not, and lacks {_some(lacking)}"
            raise UserError(
                f"config.data.name={name!r}: {source.split!r} has other classes than the run's "
                f"classifier: it {differ}"
            )
    return names or of_run


def _names_of_run(task: Task) -> tuple[str, ...]:
    """The names of the classes that the run was trained on; none where they are unknown."""
    try:
        found = sources.open_split(task.network.config, "train")
    except (ArgumentError, UserError) as error:
        processes.say(
            f"classes are compared by their number, for the run's images are gone: {error}"
        )
        return ()
    return found.source.class_names if found.num_classes == task.network.model.classes else ()


def _some(names: list[str]) -> str:
    """At most three of some names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more

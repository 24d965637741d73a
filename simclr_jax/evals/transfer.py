"""Transfer of a network to a dataset: linear, or fine-tuned with a grid of rates and decays.

Reference: Chen et al. 2020, Table 8 and appendix B.8 (arXiv 2002.05709).
"""

import contextlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from simclr_jax import processes
from simclr_jax.config import sources
from simclr_jax.config.rules import RANGE, RUN, Rule, at_least, one_of, wrong
from simclr_jax.data.joined import Joined
from simclr_jax.data.readable import Readable
from simclr_jax.errors import DivergedError
from simclr_jax.evals import grid, logistic, validation
from simclr_jax.evals.finetuning import FineTuning
from simclr_jax.evals.grid import Found, Point
from simclr_jax.evals.metrics import METRICS, scored
from simclr_jax.evals.scores import subject
from simclr_jax.evals.task import Task
from simclr_jax.losses import label_loss

# The rules of the config section "transfer".
RULES: dict[str, Rule] = {
    "transfer.method": one_of("linear", "finetune"),
    "transfer.metric": one_of(*METRICS),
    "transfer.held_out": RUN["data.held_out"],
    "transfer.l2_range": RANGE,
    "transfer.l2_count": at_least(1),
    "transfer.steps": RUN["train.steps"],
    "transfer.batch_size": RUN["train.batch_size"],
    "transfer.microbatches": RUN["train.microbatches"],
    "transfer.lr_range": RANGE,
    "transfer.lr_count": at_least(1),
    "transfer.decay_range": RANGE,
    "transfer.decay_count": at_least(0),
    "transfer.share": grid.SHARE,
}
_IN_WORDS = {"top1": "top-1", "mean_per_class": "mean per class", "map11": "11-point mAP"}


def run(task: Task) -> dict[str, Any] | None:
    """Evaluates a network on a dataset; returns its part of result.json.

    Values are chosen on images for validation; the network is then trained on these as well, and
    tested once.

    Returns:
      The part; None where other commands have points of the grid to compute first.

    Raises:
      UserError: The images have no labels to learn, or other ones than the metric is for.
      DivergedError: All trainings have diverged, or a loss is not finite.
    """
    task.check_labels()
    metric = task.config.transfer.metric
    if task.train.multilabel != (metric == "map11"):
        several = "map11 for images of several labels, and another for images of one"
        raise wrong("transfer.metric", metric, several)
    method = task.config.transfer.method
    linear = method == "linear"
    found = logistic.evaluated(task, "transfer", metric) if linear else _fine_tuned(task)
    return found and {"method": method, "metric": metric, **found}


def in_words(result: dict[str, Any]) -> str:
    """The metric of a result, what it is of and how its values were chosen, as text.

    >>> found = {"metric": "mean_per_class", "mean_per_class": 0.5, "method": "finetune"}
    >>> found |= {"num_examples": 8, "dataset": "digits", "lr": 0.01, "decay": 0.0, "points": 9}
    >>> in_words({**found, "diverged": 1, "validation": "4 of val"}).partition(", fine-tuned, ")[2]
    'lr 0.01 without decay, of 9 points by 4 of val, 1 diverged'
    """
    left_out = f", {result['unreadable']} unreadable left out" if result.get("unreadable") else ""
    if result.get("unlabelled"):
        left_out += f", {result['unlabelled']} without labels left out"
    metric = result["metric"]
    line = f"{_IN_WORDS[metric]} {result[metric]:.1%} on {subject(result, left_out)}"
    if result["method"] == "linear":
        return f"{line}, linear, {logistic.chosen_in_words(result)}"
    decay = f"and decay {result['decay']:.3g}" if result["decay"] else "without decay"
    diverged = f", {result['diverged']} diverged" if result["diverged"] else ""
    return (
        f"{line}, fine-tuned, lr {result['lr']:.3g} {decay}, of {result['points']} points "
        f"by {result['validation']}{diverged}"
    )


class _Images(NamedTuple):
    """The images of a fine-tuning.

    Attributes:
      train: Those that all points are trained on.
      validation: Those that tell the better point.
      both: All of them.
      name: Those for validation, in words.
    """

    train: Readable
    validation: Readable
    both: Readable
    name: str

    @classmethod
    def of(cls, task: Task) -> "_Images":
        """The images of a task.

        Raises:
          UserError: They are fewer than a batch.
        """
        keys, both = task.config.transfer, task.train
        train, held, name = validation.divide(task, keys.held_out)
        if task.validation is not None:
            both = sources.readable(task.run_config, Joined([train.source, held.source]))
        if len(train) < keys.batch_size:
            allowed = f"at most the {len(train)} images of {train.split!r}"
            raise wrong("transfer.batch_size", keys.batch_size, allowed)
        return cls(train, held, both, name)


def _check_keys(task: Task) -> None:
    """Raises UserError where a network cannot be fine-tuned as the keys say."""
    keys, layer, devices = task.config.transfer, task.config.features.layer, jax.device_count()
    share = keys.batch_size // devices
    if share % keys.microbatches:
        allowed = f"a divisor of the {share} images of a device's share of the batch"
        raise wrong("transfer.microbatches", keys.microbatches, allowed)
    if not layer.startswith("h"):
        allowed = "h or headK, where the new classifier sits"
        raise wrong("features.layer", layer, f"{allowed}, for transfer.method=finetune")


def _fine_tuned(task: Task) -> dict[str, Any] | None:
    """The result of the best point of the grid, trained again on all images but the test's."""
    _check_keys(task)
    images = _Images.of(task)
    task.check_examples(images.both.source.labels(), task.test.source.labels())
    found, points = Found(task.folder, task.of), grid.points(task.config.transfer)
    tuning = FineTuning(task)
    _compute(task, tuning, images, points, found)
    tried = [each for point in points if (each := found[point.name]) is not None]
    if lacking := len(points) - len(tried):
        processes.say(
            f"transfer: {lacking} of {len(points)} points are not computed yet; run the same "
            "command again when all shares have ended"
        )
        return None
    best = _best(points, tried)
    test = tuning.logits(tuning.train(images.both, best), task.test)
    return {
        **task.tested(test),
        **scored(test.x, test.labels, task.config.transfer.metric),
        "lr": best.lr,
        "decay": best.decay,
        "weight_decay": best.weight_decay,
        "steps": tuning.steps,
        "batch_size": task.config.transfer.batch_size,
        "validation": images.name,
        "points": len(points),
        "diverged": sum(each["value"] is None for each in tried),
        "tried": [{**point._asdict(), **each} for point, each in zip(points, tried, strict=True)],
    }


def _compute(
    task: Task, tuning: FineTuning, images: _Images, points: list[Point], found: Found
) -> None:
    """Computes the points of this command's share that are not there yet."""
    metric, share = task.config.transfer.metric, task.config.transfer.share or (0, 1)
    mine = points[share[0] :: share[1]]
    for number, point in enumerate(mine, 1):
        if found[point.name] is None:
            value = loss = None
            with contextlib.suppress(DivergedError):
                logits = tuning.logits(tuning.train(images.train, point), images.validation)
                value = METRICS[metric](*logits)
                loss = float(label_loss(*map(jnp.asarray, logits))[0])
            found[point.name] = {"value": value, "loss": loss}
            text = "diverged" if value is None else f"{_IN_WORDS[metric]} {value:.1%}"
            processes.say(f"{number} of {len(mine)}: {point.name}: {text} of {images.name}")


def _best(points: list[Point], tried: list[dict[str, Any]]) -> Point:
    """The point with the highest value; of equal ones, that with the smallest loss.

    Raises:
      DivergedError: All have diverged.
    """
    whole = [
        (each, point)
        for each, point in zip(tried, points, strict=True)
        if each["value"] is not None
    ]
    if not whole:
        raise DivergedError(
            f"all {len(points)} fine-tunings have diverged; lower config.transfer.lr_range"
        )
    return max(whole, key=lambda pair: (pair[0]["value"], -pair[0]["loss"]))[1]

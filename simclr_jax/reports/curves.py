"""The numbers of runs' rows as charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from simclr_jax.pages.charts import Chart, Line, has_values
from simclr_jax.reports.runs import Run
from simclr_jax.run.health import Start


class Shown(NamedTuple):
    """What a chart of one run shows.

    Attributes:
      title: The title of the chart.
      keys: {key of a row: the name of its line}.
      percent: Whether the values are shares.
      note: A sentence about the values, or nothing.
    """

    title: str
    keys: dict[str, str]
    percent: bool = False
    note: str = ""


SHOWN = (
    Shown("Contrastive loss", {"contrastive_loss": "contrastive loss"}),
    Shown("Classifier loss", {"classifier_loss": "classifier loss"}),
    Shown("Distillation loss", {"distillation_loss": "distillation loss"}),
    Shown("Weight decay in the loss", {"weight_decay_loss": "weight decay"}),
    Shown(
        "Contrastive accuracy",
        {"contrastive_accuracy": "of the training batch"},
        percent=True,
        note="The share of images whose view a is most similar to its own view b.",
    ),
    Shown(
        "Contrastive entropy",
        {"contrastive_entropy": "of the training batch"},
        note="In nats: log B where all B images of a batch look alike, 0 where each is sure.",
    ),
    Shown(
        "Accuracy of the classifier",
        {
            "online_accuracy": "online, training batch",
            "train_accuracy": "training batch",
            "teacher_agreement": "agreement with the teacher, training batch",
            "eval_top1": "evaluation, top-1",
            "eval_knn": "evaluation, top-1 by nearest neighbours",
            "eval_binary_accuracy": "evaluation, binary accuracy",
            "eval_agreement": "evaluation, agreement with the teacher",
        },
        percent=True,
    ),
    Shown("Loss on the evaluation split", {"eval_loss": "evaluation"}),
    Shown(
        "Similarity of embeddings",
        {
            "mean_similarity": "mean cosine similarity",
            "hardest_similarity": "of the hardest negative",
            "positive_similarity": "of the two views of an image",
        },
        note="A mean near 1: the embeddings have collapsed.",
    ),
    Shown("Alignment", {"alignment": "mean squared distance of two views"}, note="0 is the best."),
    Shown(
        "Uniformity",
        {"uniformity": "of different images"},
        note="Lower is more uniform; 0 is a collapse.",
    ),
    Shown(
        "Effective rank of the embeddings",
        {"effective_rank": "effective rank", "rankme": "RankMe"},
    ),
    Shown("Learning rate", {"learning_rate": "learning rate"}),
    Shown("Gradient norm", {"grad_norm": "gradient norm"}),
    Shown("Norm of the parameters", {"param_norm": "norm of the parameters"}),
    Shown(
        "LARS's trust ratios",
        {
            "trust_ratio_min": "smallest",
            "trust_ratio_median": "median",
            "trust_ratio_max": "largest",
        },
    ),
    Shown("Images per second", {"images_per_second": "images per second"}),
    Shown(
        "Waiting for input",
        {"input_wait": "share of the time"},
        percent=True,
        note="The share of the time in which the devices waited for images.",
    ),
    Shown("Skipped updates", {"skipped_updates": "so far"}),
)
_PLACES = ("step", "epoch")
_SAME = ("loss",)  # It is the sum of losses that have charts, unless it has none of them.


def charts(runs: Sequence[Run]) -> list[Chart]:
    """The charts of one run, or of several, each number with a line a run.

    Several runs with batches or data of other sizes are drawn over epochs, all else over steps.
    """
    by_epoch = len({_pace(run) for run in runs}) > 1
    shown = [*SHOWN, *_others(runs)]
    found = []
    for each in shown:
        if len(runs) == 1:
            groups = [(each.title, [(runs[0], key, name) for key, name in each.keys.items()])]
        else:
            groups = [
                (
                    each.title if len(each.keys) == 1 else f"{each.title}: {name}",
                    [(run, key, run.name) for run in runs],
                )
                for key, name in each.keys.items()
            ]
        for title, members in groups:
            lines = [_line(run, key, name, by_epoch=by_epoch) for run, key, name in members]
            if len(runs) > 1:  # A run has one colour, also where others have no such number.
                lines = [replace(line, number=place) for place, line in enumerate(lines)]
            drawn = [line for line in lines if has_values(line)]
            if drawn:
                found.append(
                    Chart(
                        title,
                        drawn,
                        x_label=_PLACES[by_epoch],
                        percent=each.percent,
                        level=_level(runs, members[0][1]),
                        note=each.note,
                    )
                )
    return found


def _line(run: Run, key: str, name: str, *, by_epoch: bool) -> Line:
    """The values of a key, without the rows that do not have it."""
    place = _PLACES[by_epoch]
    rows = [row for row in run.rows if key in row and row.get(place) is not None]
    return Line(name, [row[place] for row in rows], [row[key] for row in rows])


def _pace(run: Run) -> tuple[int, int | None]:
    return run.config.train.batch_size, run.config.data.num_examples


def _others(runs: Sequence[Run]) -> list[Shown]:
    """Charts of the numbers that no chart is made for, such as those of newer versions."""
    known = {key for each in SHOWN for key in each.keys}
    found = dict.fromkeys(key for run in runs for row in run.rows for key in row)
    parted = any(key.endswith("_loss") and key != "eval_loss" for key in found)
    left = [key for key in found if key not in (*known, *_PLACES, *(_SAME if parted else ()))]
    return [Shown(key.replace("_", " ").capitalize(), {key: key}) for key in left]


def _level(runs: Sequence[Run], key: str) -> tuple[float, str] | None:
    """The loss of a network that knows nothing, where all runs have the same one."""
    starts = [Start.of_run(run.config) for run in runs]
    first = starts[0]
    if first is None or first.key != key or len({*starts}) > 1:
        return None
    return first.loss, f"no learning: {first.formula} = {first.loss:.3f}"

"""The sections of a report: the values of templates/report.html."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np

from simclr_jax.config import settings
from simclr_jax.evals import results, scores
from simclr_jax.pages import charts, clouds, matrices
from simclr_jax.reports import curves, pictures, runs
from simclr_jax.reports.pictures import Sample
from simclr_jax.reports.runs import Run

Values = dict[str, Any]

_PAIRS = 10  # The largest number of pairs of classes that are listed.
_SCORED = ("top1", "top5", "num_examples")  # The scores that have columns of their own.


def of_runs(found: Sequence[Run]) -> Values:
    """The values of the sections that every report has: numbers, curves, evaluations, keys."""
    several = len(found) > 1
    headings = {
        "numbers": "The runs in numbers" if several else "The run in numbers",
        "curves": "Curves",
        "evaluations": "Evaluations",
        "keys": "Keys in which the runs differ" if several else "Keys that are not the default",
    }
    drawn = [charts.drawn(chart) for chart in curves.charts(found)]
    thinned = any(len(run.rows) > charts.MOST for run in found)
    return {
        "title": f"{len(found)} runs: {', '.join(run.name for run in found)}"
        if several
        else found[0].name,
        "lead": " · ".join(str(run.root) for run in found),
        "headings": headings,
        "states": [_of(run, runs.state(run), several) for run in found],
        "warnings": [_of(run, text, several) for run in found for text in runs.warnings(run)],
        "facts": _facts(found),
        "curves": drawn,
        "curves_note": "Every logged row of metrics.jsonl"
        + (", thinned to the extremes (faint), and the means of stretches" if thinned else "")
        + ". Touch a chart, or go through it with the arrow keys, for its values.",
        "curves_missing": _without_rows(found),
        **_evaluations(found),
        **_keys(found),
    }


def _of(run: Run, text: str, several: bool) -> str:
    return f"{run.name}: {text}" if several else text


def _facts(found: Sequence[Run]) -> Values:
    columns = [runs.facts(run) for run in found]
    names = list(dict.fromkeys(name for column in columns for name in column))
    return {
        "caption": "From the files in the run's folder",
        "head": ["", *(run.name for run in found)],
        "rows": [
            [name, *(column.get(name, settings.NONE) for column in columns)] for name in names
        ],
    }


def _without_rows(found: Sequence[Run]) -> str:
    names = [run.name for run in found if not run.rows]
    return f"No rows of training yet (metrics.jsonl): {', '.join(names)}." if names else ""


def _evaluations(found: Sequence[Run]) -> Values:
    """The table of the results of evaluations, and what to do where there are none."""
    missing = [
        f"{runs.first_evaluation(run)} --run={shlex.quote(str(run.root))}"
        for run in found
        if not run.results and run.steps
    ]
    adds = f" This adds one: {'; '.join(missing)}" if missing else " It needs a checkpoint."
    lacking = any(not run.results for run in found)
    value: Values = {
        "evaluations": None,
        "evaluations_missing": f"No evaluation yet.{adds}" if lacking else "",
    }
    pairs = [(run, row) for run in found for row in run.results]
    if pairs:
        several = len(found) > 1
        head = ["protocol", "step", "of", "top-1", "top-5", "images", "other scores"]
        rows = [[*([run.name] if several else []), *_result(row)] for run, row in pairs]
        first = 3 + several
        value["evaluations"] = {
            "caption": "The results in eval/",
            "head": [*(["run"] if several else []), *head],
            "rows": rows,
            "numbers": range(first, first + 3),
        }
    return value


def _result(row: results.Result) -> list[str]:
    others = [
        f"{key.replace('_', ' ')} {charts.in_words(row[key])}"
        for key in results.SCORES
        if key not in _SCORED and isinstance(row.get(key), int | float)
    ]
    place = row["folder"].split("/")
    top5 = _number(row, "top5") if scores.tells_top5(row) else None
    return [
        str(row.get("protocol", place[0])),
        "untrained" if row.get("untrained") else str(row.get("checkpoint_step", place[1])),
        place[-1].replace(",", ", "),
        *(charts.in_words(each, percent=True) for each in (_number(row, "top1"), top5)),
        charts.in_words(_number(row, "num_examples")),
        ", ".join(others),
    ]


def _number(row: results.Result, key: str) -> float | None:
    value = row.get(key)
    return value if isinstance(value, int | float) else None


def _keys(found: Sequence[Run]) -> Values:
    configs = [run.config for run in found]
    every = settings.settings(configs)
    names = [run.name for run in found]
    if len(found) > 1:
        shown, none = settings.differing(every), "The runs have the same config."
    else:
        shown, none = settings.changed(every), "All keys have their defaults."

    def table(caption: str, chosen: Sequence[settings.Setting]) -> Values:
        head = ["key", *(names if len(found) > 1 else ["value"]), "default"]
        return {
            "caption": caption,
            "head": head,
            "rows": [[one.key, *one.values, one.default] for one in chosen],
        }

    return {
        "keys": {**table(f"{len(shown)} of {len(every)} keys", shown), "none": none},
        "all_keys": table(f"All {len(every)} keys", every),
    }


def of_pictures(found: Sample, *, by: str) -> Values:
    """The values of the sections with pictures.

    Args:
      found: The images.
      by: The method of the map, 'pca' or 'umap'.
    """
    places, about_map = pictures.mapped(found.x, by)
    named = f"{len(found.names):,} images"
    texts = [found.text(index) for index in range(len(found.names))]
    value: Values = {
        "about": found.about,
        "neighbours": [_neighbours(found, index) for index in pictures.queries(found)],
        "neighbours_note": f"An image, and those {pictures.SHOWN} of the {named} whose features "
        "(layer h) are the most similar to its own, with the cosine similarity."
        + (" ≠ marks a class other than that of the first image." if found.classes else ""),
        "map": clouds.drawn(
            places,
            [pictures.square(each, pictures.MAP_SIDE) for each in found.pictures],
            texts,
            found.labels,
            found.classes,
            note=about_map,
        ),
        "map_note": ""
        if by == "umap"
        else "--map=umap makes one by UMAP, with pip install -e '.[umap]'.",
    }
    return {"pictures": value | _judgement(found)}


def _neighbours(found: Sample, query: int) -> list[Values]:
    """An image and its neighbours, the nearest one first."""
    row = [{**_picture(found, query), "other": False, "similarity": ""}]
    near = zip(found.nearest.rows[query], found.nearest.similarity[query], strict=True)
    for index, similarity in list(near)[: pictures.SHOWN]:
        kinds = found.labels[query], found.labels[index]
        other = bool(kinds[0] != kinds[1] and min(kinds) >= 0)
        about = {"other": other, "similarity": f"{similarity:.2f}"}
        row.append({**_picture(found, int(index)), **about})
    return row


def _picture(found: Sample, index: int) -> Values:
    """A picture with the words that stand for it, and the name of its class where it has one."""
    picture, label = found.pictures[index], int(found.labels[index])
    return {
        "picture": picture,
        "alt": found.text(index),
        "small": max(picture.shape[:2]) < pictures.SIDE,
        "name": clouds.name_of(label, found.classes) if found.classes else "",
    }


def _judgement(found: Sample) -> Values:
    """The confusion matrix and the failures, where there are labels of two classes."""
    value: Values = {"matrix": None, "confused": [], "failures": [], "unjudged": ""}
    why = "" if found.several_classes else "The images have one class only"
    if not found.classes:
        why = "The images have no labels, or can have several"
    if not why and (count := len(found.names)) < pictures.JUDGED_LEAST:
        few = f"There are {count} images, too few to judge each by the others, which takes "
        few += f"{pictures.JUDGED_LEAST} of them."
        return value | {"unjudged": few, "failures_note": few}
    counts, failures = (np.zeros((0, 0), int), []) if why else pictures.judged(found)
    if not why and not counts.any():
        why = "Images with labels have no others with labels near them"
    if why:
        value["unjudged"] = f"{why}, so that there is nothing to confuse."
        value["failures_note"] = f"{why}, so that no image can be told to be wrong."
        return value
    present = [k for k in range(len(counts)) if counts[k].any() or counts[:, k].any()]
    counts = counts[present][:, present]
    names = [found.classes[k] for k in present]
    value["matrix"] = matrices.drawn(
        counts,
        names,
        note=_about_votes(found, counts),
    )
    value["confused"] = matrices.confused(counts, names, _PAIRS)
    value["failures"] = [_failure(found, failure) for failure in failures[: pictures.FAILURES]]
    shown = min(pictures.FAILURES, len(failures))
    value["failures_note"] = (
        f"The {shown} of {len(failures):,} wrong images whose neighbours were the surest, each "
        "beside the most similar image of the class that it was taken for."
        if failures
        else "No image was taken for one of another class."
    )
    return value


def _about_votes(found: Sample, counts: np.ndarray) -> str:
    """Whose votes a confusion matrix (C, C) is by, how many are right, and how many cannot be."""
    k, count = pictures.voting(len(found.names)), len(found.names)
    whose = f"votes of the {k} nearest of the others (temperature {pictures.TEMPERATURE:g})"
    by = whose if k > 1 else "class of the nearest other one"
    why = f", since {pictures.VOTERS} would be too many of {count}" if k < pictures.VOTERS else ""
    alone = int((np.bincount(found.labels[found.labels >= 0]) == 1).sum())
    are = "is the only one of its class" if alone == 1 else "are the only ones of their classes"
    unjudged = int((found.labels >= 0).sum() - counts.sum())
    rest = f"{unjudged:,} more, without a label among those neighbours, are left out. "
    return (
        f"Of {counts.sum():,} images with labels, by the {by}{why}: "
        f"{counts.trace() / max(1, counts.sum()):.1%} are right. "
        + (f"{alone} {are}, and cannot be. " if alone else "")
        + (rest if unjudged else "")
        + "An evaluation takes the neighbours from the training images instead."
    )


def _failure(found: Sample, failure: pictures.Failure) -> Values:
    misled = _picture(found, failure.misled_by)
    true = clouds.name_of(int(found.labels[failure.image]), found.classes)
    taken = clouds.name_of(failure.taken_for, found.classes)
    return {
        **_picture(found, failure.image),
        "misled_by": misled["picture"],
        "misled_alt": misled["alt"],
        "misled_small": misled["small"],
        "text": f"{true}, taken for {taken} by {failure.share:.0%} of the votes; "
        f"image {found.names[failure.image]}",
    }


def links(values: Values) -> list[tuple[str, str]]:
    """The links at the top of the page, [(id, heading)]."""
    found = list(values["headings"].items())
    if values["pictures"]:
        found += [
            ("pictures", "Nearest neighbours"),
            ("confusion", "Confusion matrix"),
            ("failures", "Worst failures"),
            ("map", "Map"),
        ]
    return found + ([("filters", "Filters")] if values["filters"] else [])

"""A run as its folder tells it: how far it is, what it reached, and what went wrong."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from etils import epath
from ml_collections import FrozenConfigDict

from simclr_jax.config import parts, record
from simclr_jax.data import fingerprint
from simclr_jax.errors import UserError
from simclr_jax.evals import coming, knn, results
from simclr_jax.run import network, unreadable, warned
from simclr_jax.run.health import Health, Start, Warned
from simclr_jax.run.speed import MUCH
from simclr_jax.store import checkpoint, lock
from simclr_jax.store.rows import UNTIMED, Row, read_rows


@dataclasses.dataclass(frozen=True)
class Run:
    """What is read of a run's folder.

    Attributes:
      name: The run's name on the page.
      root: The folder.
      described: The description in config.json.
      config: The config.
      rows: The rows of metrics.jsonl.
      results: The results of evaluations, without their long entries.
      steps: The steps of the checkpoints, ascending.
      trains: Whether a trainer holds the run's lock.
      unreadable: The images that the run could not read; see `unreadable.read`.
      warned: The warnings that the run gave of its health; None: it has kept none.
    """

    name: str
    root: epath.Path
    described: dict[str, Any]
    config: FrozenConfigDict
    rows: list[Row]
    results: list[results.Result]
    steps: list[int]
    trains: bool
    unreadable: dict[str, dict[str, Any]]
    warned: dict[str, Warned] | None = None

    @property
    def imported(self) -> bool:
        """Whether the run's weights were imported, so that it has no steps."""
        return self.config.data.num_examples is None

    @property
    def total(self) -> int | None:
        """The number of steps of the run; None: it has none."""
        return None if self.imported else parts.schedule(self.config).total_steps

    @property
    def reached(self) -> int:
        """The last step that was logged or saved."""
        last = self.rows[-1]["step"] if self.rows else 0
        return max([last, *self.steps[-1:]])

    def last(self, key: str) -> float | None:
        """The last value of a number of the rows; None where there is none."""
        return next((row[key] for row in reversed(self.rows) if row.get(key) is not None), None)


def read(paths: Sequence[str]) -> list[Run]:
    """Reads the folders of runs; writes nothing and needs no lock.

    Args:
      paths: The folders, as the user wrote them.

    Raises:
      UserError: A folder is given twice, or has no run, or a file there is damaged.
    """
    roots = [network.open_run(path, "RUN") for path in paths]
    for number, root in enumerate(roots):
        if root in roots[:number]:
            raise UserError(f"RUN={paths[number]}: is given twice")
    short = [root.name for root in roots]
    names = short if len({*short}) == len(short) else [_plain(path) for path in paths]
    return [_read(root, name) for root, name in zip(roots, names, strict=True)]


def _plain(path: str) -> str:
    return path.rstrip("/") or path


def _read(root: epath.Path, name: str) -> Run:
    described = record.read(root)
    return Run(
        name=name,
        root=root,
        described=described,
        config=record.from_json(described),
        rows=read_rows(root / "metrics.jsonl"),
        results=results.rows(root / "eval"),
        steps=checkpoint.Reader(root).steps(),
        trains=lock.sign_of_life(root) is not None,
        unreadable=unreadable.read(root),
        warned=warned.read(root),
    )


def at(run: Run, step: int) -> Run:
    """A run as it was at a checkpoint, with the results of that one and of the untrained network.

    Args:
      run: The run.
      step: The step of the checkpoint.
    """
    return dataclasses.replace(
        run,
        rows=[row for row in run.rows if row["step"] <= step],
        results=[
            row for row in run.results if row.get("untrained") or row.get("checkpoint_step") == step
        ],
        steps=[each for each in run.steps if each <= step],
        warned=run.warned
        and {kind: each for kind, each in run.warned.items() if each.step <= step},
    )


def state(run: Run) -> str:
    """Whether a run is finished, as a sentence."""
    if run.total is None:
        return "Its weights were imported, so that it has no training of its own."
    if run.reached >= run.total:
        return f"Finished: {run.total:,} of {run.total:,} steps."
    where = f"{run.reached:,} of {run.total:,} steps"
    if run.trains:
        return f"In training: {where} when this page was made."
    last = max(run.steps, default=0)
    if run.config.train.on_nonfinite == "stop" and coming.nonfinite(run.root, last):
        return (
            f"Diverged: {where}, then a number was not finite. The same command comes to it again; "
            "with a lower optim.lr and --allow_config_change it goes on."
        )
    return f"Interrupted or stopped: {where}. The same simclr-train command goes on with it."


def facts(run: Run) -> dict[str, str]:
    """A run in a few numbers, as text by name; what is not known is left out."""
    config, model = run.config, run.config.model
    width = f" x{model.width:g}" if model.width != 1 else ""
    found = {"network": f"ResNet-{model.depth}{width}, {model.head} head"}
    if (count := parameters(run)) is not None:
        found["parameters of the encoder"] = f"{count:,}"
    found["objective"] = _objective(config)
    if not run.imported:
        found["training images"] = _images(config)
        found["steps"] = f"{run.reached:,} of {run.total:,}, of {config.train.batch_size:,} images"
        epochs = run.reached * config.train.batch_size / config.data.num_examples
        found["epochs"] = f"{epochs:,.1f}"
    if (lost := unreadable.in_words(run.unreadable)) is not None:
        found["unreadable images"] = lost
    if "device" in run.described:
        found["hardware"] = _hardware(run.described)
    found |= _measured(run)
    if (best := best_evaluation(run)) is not None:
        found["best evaluation"] = best
    return found


def _objective(config: FrozenConfigDict) -> str:
    if config.objective.name != "contrastive":
        return str(config.objective.name)
    return f"contrastive, {config.loss.name}, temperature {config.loss.temperature:g}"


def _images(config: FrozenConfigDict) -> str:
    data = config.data
    classes = f"{data.num_classes:,} classes" if data.num_classes else "no labels"
    folder = f" {data.dir}" if data.dir else ""
    bands = "" if data.channels == 3 else f", {data.channels} channel{'s' * (data.channels > 1)}"
    return (
        f"{data.num_examples:,} of {data.name}{folder}, {classes}, used at {data.image_size} pixels"
        f"{bands}"
    )


def _hardware(described: dict[str, Any]) -> str:
    devices = f"{described.get('devices', '?')} {described['device']}"
    processor = described.get("processor")
    processes = described.get("processes", 1)
    several = f", {processes} processes" if processes > 1 else ""
    return f"{devices} ({processor}){several}" if processor else f"{devices}{several}"


def _measured(run: Run) -> dict[str, str]:
    """What the rows tell of the speed and of the end of a run."""
    found = {}
    for key, name, form in (
        ("images_per_second", "images per second, median", "{:,.0f}"),
        ("input_wait", "share of time waiting for input, median", "{:.1%}"),
    ):
        values = [row[key] for row in run.rows if row.get(key) is not None]
        if values:
            found[name] = form.format(statistics.median(values))
    for key, name, form in (
        ("contrastive_loss", "last contrastive loss", "{:.3f}"),
        ("classifier_loss", "last classifier loss", "{:.3f}"),
        ("distillation_loss", "last distillation loss", "{:.3f}"),
        ("contrastive_accuracy", "last contrastive accuracy", "{:.1%}"),
        ("online_accuracy", "last online accuracy, training batch", "{:.1%}"),
        ("train_accuracy", "last training accuracy", "{:.1%}"),
        ("eval_top1", "last evaluation while training, top-1", "{:.1%}"),
        ("eval_knn", "last evaluation while training, nearest neighbours", "{:.1%}"),
        ("eval_binary_accuracy", "last evaluation while training, binary accuracy", "{:.1%}"),
        ("eval_agreement", "last agreement with the teacher", "{:.1%}"),
    ):
        if (value := run.last(key)) is not None:
            found[name] = form.format(value)
    return found


def best_evaluation(run: Run) -> str | None:
    """The highest top-1 accuracy of the evaluations, and what it is of; None where there is none.

    That of the untrained network, and of other images than those that the run is evaluated on, do
    not count: of another folder, say, or those that it was trained on.
    """
    scored = [row for row in run.results if _is_scored(run, row)]
    ranked = sorted(scored, key=lambda row: -row["top1"])
    best = next((row for row in ranked if _is_own(run, row)), None)
    if best is None:
        return None
    return f"top-1 {best['top1']:.1%}, {best.get('protocol')} at step {best.get('checkpoint_step')}"


def _is_scored(run: Run, row: results.Result) -> bool:
    score = row.get("top1")
    known = isinstance(score, int | float) and math.isfinite(score)
    return known and not row.get("untrained") and row.get("dataset") == run.config.data.name


def _is_own(run: Run, row: results.Result) -> bool:
    """Whether a result is of the run's evaluation images, as far as both tell."""
    ours = run.described.get("fingerprints", {}).get("eval", {})
    if row.get("split", ours.get("split")) != ours.get("split", row.get("split")):
        return False
    stored = results.read(run.root / "eval" / row["folder"] / "result.json") or {}
    theirs = stored.get("of", {}).get("images", {}).get("eval", {})
    return not fingerprint.differences(theirs, ours)


def first_evaluation(run: Run) -> str:
    """The command of an evaluation that any checkpoint of a run can have, without --run."""
    evaluated = run.described.get("fingerprints", {}).get("eval", {"labels": ""})
    several = run.last("eval_binary_accuracy") is not None
    if run.imported:
        return "simclr-eval --config=eval/geometry --config.data.name=…"
    votes = run.config.data.num_classes and "labels" in evaluated and not several
    return f"simclr-eval --config=eval/{'knn' if votes else 'geometry'}"


def parameters(run: Run) -> int | None:
    """The number of the encoder's parameters, by its newest checkpoint; None: not known."""
    for step in reversed(run.steps):
        path = run.root / "checkpoints" / str(step) / "digests" / "metadata"
        arrays = (results.read(path) or {}).get("arrays")
        if isinstance(arrays, dict):
            shapes = [
                about["shape"]
                for name, about in arrays.items()
                if name.startswith("model/params/encoder/")
            ]
            return sum(map(math.prod, shapes))
    return None


def warnings(run: Run) -> list[str]:
    """What went wrong in a run, a sentence each: what its rows and its folder tell."""
    found = [*_of_health(run)]
    broken = [row["step"] for row in run.rows if row.get("loss", 0.0) is None]
    if broken:
        found.append(
            f"The loss of {len(broken)} logged steps is not finite, the first of them {broken[0]}."
        )
    if skipped := run.last("skipped_updates"):
        found.append(f"Updates that were skipped, since they were not finite: {skipped:.0f}.")
    for folder, what in (
        ("nonfinite", "Steps whose images are listed since a number was not finite"),
        ("damaged", "Damaged checkpoints that were set aside"),
    ):
        names = sorted(
            (PurePosixPath(each.name).stem for each in _inside(run.root / folder)),
            key=lambda name: (len(name), name),
        )
        if names:
            found.append(f"{what}, in {folder}/: {', '.join(names)}.")
    found += _of_knn(run)
    waits = [row["input_wait"] for row in run.rows if row.get("input_wait") is not None]
    if waits and statistics.median(waits) >= MUCH:
        found.append(
            f"The devices waited for input {statistics.median(waits):.0%} of the time (the median "
            "over the rows): the images come too slowly."
        )
    return found


def _of_health(run: Run) -> list[str]:
    """The warnings that a run gave of its health.

    Where it has kept none, as in an earlier version, its judge is asked about the logged rows.
    """
    if run.warned is not None:
        return [_sentence(each.line) for each in run.warned.values()]
    found: list[Warned] = []
    if run.imported or not run.rows:
        return []
    warmup = parts.schedule(run.config).warmup_steps
    health = Health.of_run(run.config, warmup, [], tell=found.append)
    start = Start.of_run(run.config)
    needed = {"loss"} if start is None else {"loss", start.key}
    for row in run.rows:
        if needed <= row.keys() and all(
            value is not None for key, value in row.items() if key not in UNTIMED
        ):
            health.judge(row, finite=True)
    return [_sentence(each.line) for each in found]


def _sentence(line: str) -> str:
    return f"{line[:1].upper()}{line[1:]}."


def _of_knn(run: Run) -> list[str]:
    """The evaluations by nearest neighbours in which too many of the training images voted."""
    found = []
    for row in run.results:
        k, voters = row.get("k"), row.get("voters")
        if row.get("protocol") == "knn" and isinstance(k, int) and isinstance(voters, int):
            ks = [int(each) for each in row.get("by_k", {k: {}})]
            if doubt := knn.in_doubt(ks, voters):
                found.append(f"eval/{row['folder']}: {doubt}.")
    return found


def _inside(folder: epath.Path) -> list[epath.Path]:
    return list(folder.iterdir()) if folder.is_dir() else []

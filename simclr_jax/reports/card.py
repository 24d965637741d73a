"""The model card of a run's network: the README.md of its folder for the Hugging Face Hub.

Everything in it is read from the run's folder, or found when the network was exported. Of paths
only the last part is told, since a card is read by others.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import PurePosixPath
from typing import Any

from ml_collections import FrozenConfigDict

from simclr_jax.config import inputs, record, rules, settings, shipped
from simclr_jax.config.overrides import get
from simclr_jax.evals import results, scores
from simclr_jax.pages import charts, html
from simclr_jax.reports import runs
from simclr_jax.reports.runs import Run
from simclr_jax.run import advice, unreadable

Values = dict[str, Any]

NAMED_CLASSES = 20  # The largest number of classes whose names are listed.
# The names of datasets on the Hub, by those of TFDS, where they have the same images.
ON_THE_HUB = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "imagenet2012": "ILSVRC/imagenet-1k",
}
_TAGS = {
    "contrastive": ("self-supervised-learning", "contrastive-learning"),
    "supervised": ("image-classification",),
    "distill": ("knowledge-distillation",),
}
# The keys that may be paths.
_PATHS = (
    *("data.dir", "data.label_list", "data.train_split", "data.eval_split"),
    *("data.validation_split", "init.run"),
)
_IN_DATA = ("data.num_examples", "data.num_classes")  # Keys that the section on the data tells.
# Facts that other sections tell, or that are of the machine's disks.
_TOLD = ("training images", "best evaluation", "share of time waiting for input, median")
_IN_COLUMNS = ("top1", "top1_std", "top5", "top5_std")


def of_run(path: str, step: int, about: Mapping[str, Any]) -> str:
    """The model card of a checkpoint as text, Markdown that begins with its metadata in YAML.

    Args:
      path: The run's folder.
      step: The step of the checkpoint.
      about: The content of the export's about.json.

    Raises:
      UserError: There is no run, or a file of it is damaged.
    """
    (found,) = runs.read([path])
    run = runs.at(found, step)
    scored = [row for row in run.results if any(_number(row, key) for key in results.SCORES)]
    objective = None if run.imported else run.config.objective.name
    dataset = ON_THE_HUB.get(run.config.data.name or "")
    text = html.page(
        "card.md",
        name=run.root.name,
        tags=["simclr", "resnet", "pytorch", *(_TAGS[objective] if objective else ())],
        datasets=[dataset] if dataset else [],
        indexed=[
            _indexed(row) for row in scored if _number(row, "top1") and not row.get("untrained")
        ],
        version=metadata.version("simclr_jax"),
        summary=_summary(run, step, about),
        about=about,
        outputs=about["outputs"],
        rounded=run.config.data.transfer_dtype == "uint8",
        image="an image of PIL"
        if about["channels"] in (1, 3)
        else f"a NumPy array (H, W, {about['channels']})",
        data=[*_data(run, scored)],
        training=_training(run, step),
        changed=[] if run.imported else _changed(run),
        warnings=runs.warnings(run),
        results=[_row(row) for row in scored],
        commands=[_command(run, row) for row in scored],
        others=len(found.results) - len(run.results),
        evaluate=f"{runs.first_evaluation(run)} --run=RUN --step={step}",
        limits=[*_limits(run, step, scored)],
        second_paper=bool(run.config.model.sk_ratio) or objective == "distill",
    )
    return f"{text}\n"


def _summary(run: Run, step: int, about: Mapping[str, Any]) -> str:
    """What the network is and how it came about, in one or two sentences."""
    size, width = about["image_size"], about["outputs"]["h"][0]
    model = run.config.model
    network = f"A ResNet-{model.depth}" + (f" x{model.width:g}" if model.width != 1 else "")
    bands = f" and {about['channels']} channels" if about["channels"] != 3 else ""
    network += f" that maps an image of {size} x {size} pixels{bands} to {width:,} numbers. "
    if run.imported:
        origin = _last(str(run.described.get("imported_from", "")))
        return f"{network}Its weights were imported from the checkpoint {origin}, step {step}."
    images = f"{run.config.data.num_examples:,} images of {_dataset(run.config.data)}"
    how = {
        "contrastive": f"SimCLR trained it on {images}, without labels.",
        "supervised": f"It was trained on {images} and their labels.",
        "distill": f"It was trained on {images} to say what another network, its teacher, says.",
    }[run.config.objective.name]
    start = run.config.init.run
    return network + how + (f" It started from the weights of {_last(start)}." if start else "")


def _dataset(data: Any) -> str:
    """The name of a dataset; for a folder, that of the folder, which is not all of its path."""
    name, directory = str(data["name"]), data["dir"]
    return f"the folder {_last(directory)}" if name == "folder" and directory else name


def _last(path: str) -> str:
    """The last part of a path.

    >>> _last("gs://bucket/runs/first/"), _last("cats")
    ('first', 'cats')
    """
    return PurePosixPath(path).name or path


def _split(of: Mapping[str, Any]) -> str:
    """The split of a fingerprint or a result, in words."""
    return f"split {_last(str(of['split']))}" if "split" in of else "unknown split"


def _data(run: Run, scored: Iterable[results.Result]) -> Iterable[str]:
    """The images that the network was trained and evaluated on, what was left out: sentences."""
    if run.imported:
        yield "The weights were imported. The run does not know which images they were trained on."
        return
    data, prints = run.config.data, run.described.get("fingerprints", {})
    train, evaluation = prints.get("train", {}), prints.get("eval", {})
    count = f"{data.num_examples:,}"
    yield f"Training: {count} images of {_dataset(data)}, {_split(train)}."
    if evaluation:
        yield f"Evaluation while training: {evaluation['images']:,} images, {_split(evaluation)}."
    yield f"Size: images are seen at {data.image_size} x {data.image_size} pixels."
    yield _labels(run)
    if "bytes" in train and data.on_bad_image == "replace":
        yield f"Images that cannot be read: {unreadable.in_words(run.unreadable) or 'not known'}."
    own = [row for row in scored if row.get("dataset") == data.name]
    words = {"unreadable": "that cannot be read", "unlabelled": "without a label"}
    left = {name: [row[name] for row in own if name in row] for name in words}
    told = [f"{max(left[name]):,} {words[name]}" for name in words if left[name]]
    if told:
        yield f"Left out of the evaluations below: of the images {', '.join(told)}."


def _labels(run: Run) -> str:
    """What classes there are, which labels were seen, and what they were used for: a sentence."""
    data = run.config.data
    if not data.num_classes:
        return "Labels: none."
    names = record.classes_of(run.described)
    few = isinstance(names, list) and len(names) <= NAMED_CLASSES
    listed = f" ({', '.join(names)})" if few and names else ""
    use = {
        "contrastive": "They trained the linear classifier alone, not the encoder.",
        "supervised": "They trained the network.",
        "distill": "They trained the network by their part of the loss.",
    }[run.config.objective.name]
    if run.config.objective.name == "distill" and not run.config.objective.label_weight:
        use = "They did not train the network."
    seen = {
        "label_fraction": "a fraction of {} of those of each class",
        "labels_per_class": "{} of each class",
        "label_list": "those of the images that {} names",
    }
    chosen = [
        words.format(_last(str(data[key]))) for key, words in seen.items() if data[key] is not None
    ]
    which = f", of which {chosen[0]} were seen (label seed {data.label_seed})" if chosen else ""
    return f"Labels: {data.num_classes:,} classes{listed}{which}. {use}"


def _training(run: Run, step: int) -> list[tuple[str, str]]:
    """The recipe and what it reached, as names and values."""
    if run.imported:
        kept = ("network", "parameters of the encoder")
        return [(name, value) for name, value in runs.facts(run).items() if name in kept]
    config, facts = run.config, runs.facts(run)
    optim, augment = config.optim, config.augment
    recipe = {
        "augmentation": f"{_applied(config)}; jitter strength {augment.strength:g}; crops of "
        f"{augment.crop_area[0]:g} to {augment.crop_area[1]:g} of the area"
        + (f"; {augment.policy}" if augment.policy else "")
        + (f"; {lost}" if (lost := advice.left_out(inputs.views(config))) else ""),
        "optimizer": f"{optim.name}, base rate {optim.lr:g} (scaling: {optim.lr_scaling}), weight "
        f"decay {optim.weight_decay:g}, warm-up {optim.warmup_epochs:g} epochs, then a cosine to 0",
    }
    told = {name: value for name, value in facts.items() if name not in _TOLD}
    names = list(told)
    place = names.index("objective") + 1
    ordered = {
        **{n: told[n] for n in names[:place]},
        **recipe,
        **{n: told[n] for n in names[place:]},
    }
    return [*ordered.items(), ("software", _versions(run))]


def _versions(run: Run) -> str:
    shown = ("simclr_jax", "jax", "flax", "python")
    versions = run.described.get("versions", {})
    return ", ".join(f"{name} {versions[name]}" for name in shown if name in versions)


def _changed(run: Run) -> list[tuple[str, str, str]]:
    """The keys that numbers depend on and that are not the default: key, value and default."""
    return [
        (one.key, _last(one.values[0]) if one.key in _PATHS else one.values[0], one.default)
        for one in settings.changed(settings.settings([run.config]))
        if one.key in rules.RUN
        and rules.RUN[one.key].on_resume != rules.FREE
        and one.key not in _IN_DATA
    ]


def _row(row: results.Result) -> list[str]:
    """The cells of a result: what it is of, and its scores."""
    others = (
        f"{key.replace('_', ' ')} {charts.in_words(row[key])}"
        for key in results.SCORES
        if key not in _IN_COLUMNS and _number(row, key)
    )
    network = ", untrained network" if row.get("untrained") else ""
    images = f"{row.get('num_examples', 0):,} of {_of(row)}, {_split(row)}"
    return [
        f"{_protocol(row)}{network}", str(row.get("layer", "h")), images,
        _percent(row, "top1"),
        _percent(row, "top5") if scores.tells_top5(row) else settings.NONE,
        ", ".join(others) or settings.NONE,
    ]  # fmt: skip


def _protocol(row: results.Result) -> str:
    return str(row.get("protocol") or row["folder"].partition("/")[0])


def _percent(row: results.Result, key: str) -> str:
    spread = f" ± {row[f'{key}_std']:.1%}" if _number(row, f"{key}_std") else ""
    return f"{row[key]:.1%}{spread}" if _number(row, key) else settings.NONE


def _of(row: results.Result) -> str:
    return _dataset({"name": row.get("dataset"), "dir": row.get("data_dir")})


def _number(row: results.Result, key: str) -> bool:
    """Whether a result has a number of that name."""
    value = row.get(key)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _indexed(row: results.Result) -> Values:
    """A result as the metadata of the card have it."""
    name = str(row.get("dataset"))
    return {
        "metric": f"top-1, {_protocol(row)} on layer {row.get('layer', 'h')}",
        "dataset": _of(row),
        "type": ON_THE_HUB.get(name, name),
        "split": _last(str(row.get("split", "unknown"))),
        "top1": round(row["top1"], 4),
    }


def _command(run: Run, row: results.Result) -> str:
    """The command of a result, with RUN for the folder of the run."""
    name = f"eval/{_protocol(row)}"
    step = "--untrained" if row.get("untrained") else f"--step={row['checkpoint_step']}"
    words = ["simclr-eval", f"--config={name}", "--run=RUN", step]
    of = (results.read(run.root / "eval" / row["folder"] / "result.json") or {}).get("of", {})
    usual = shipped.load(name) if shipped.find(name) else {}
    for section, values in sorted(of.get("config", {}).items()):
        below = values if isinstance(values, dict) else {"": values}
        for part, value in below.items():
            key = f"{section}.{part}".rstrip(".")
            if key == "protocol" or (usual and _same(value, get(usual, key))):
                continue
            text = _last(str(value)) if key in _PATHS else _text(value)
            words.append(f"--config.{key}={text}")
    return shlex.join(words)


def _same(value: Any, usual: Any) -> bool:
    """Whether a value of JSON is that of a config, whose tuples JSON has as lists."""
    return bool(value == json.loads(json.dumps(usual)))


def _text(value: Any) -> str:
    """A value as the command line takes it.

    >>> _text(("crop", "flip")), _text([["crop"], ["crop", "flip"]]), _text(None)
    ('crop,flip', '(crop),(crop,flip)', 'None')
    """
    if isinstance(value, list | tuple):
        nested = any(isinstance(each, list | tuple) for each in value)
        return ",".join(f"({_text(each)})" if nested else _text(each) for each in value)
    return str(value)


def _applied(config: FrozenConfigDict) -> str:
    """The operations that are applied to the views, in words, such as 'crop, flip'."""
    views = inputs.views(config)
    if config.augment.policy is not None:
        ops = config.augment.ops
    else:
        ops = tuple(dict.fromkeys(views.applied(view) for view in range(views.count)))
    return _text(ops[0] if len(ops) == 1 else ops).replace(",", ", ")


def _limits(run: Run, step: int, scored: Iterable[results.Result]) -> Iterable[str]:
    """What the network is not known to do, as far as the run tells: sentences."""
    if not run.imported and step < (run.total or 0):
        of = f"{step:,} of {run.total:,} steps"
        yield f"Its training was not finished: these are the weights after {of}."
    tested = dict.fromkeys(_of(row) for row in scored if not row.get("untrained"))
    on = f"It was evaluated on images of {', '.join(tested)}" if tested else "It was not evaluated"
    yield f"{on}. How it does on other images is not known from this run."
    yield "The run has no test of fairness, of robustness, or of what the images tell of people."
    if not run.imported and run.config.objective.name == "contrastive":
        ops = _applied(run.config)
        yield f"It was trained to tell the same of an image whatever these change: {ops}."

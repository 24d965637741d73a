"""The images that the keys of a config name, to train on and to evaluate on."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from simclr_jax.config import overrides, rules
from simclr_jax.data import labels, splits
from simclr_jax.data.readable import Readable
from simclr_jax.data.source import FEW_LABELS, Source
from simclr_jax.errors import UserError
from simclr_jax.store.files import is_remote

# The datasets that were opened in a `shared` context, by what they were opened with.
_datasets: dict[tuple[Any, ...], splits.Splits] | None = None


def open_split(config: ConfigDict, which: str, dataset: splits.Splits | None = None) -> Readable:
    """Opens the split that the config trains on ('train') or evaluates on ('eval').

    Args:
      config: The config.
      which: The use of the split, 'train' or 'eval'.
      dataset: The splits of the config, from `open_dataset`, to list the images once for both.

    Raises:
      ArgumentError: There is no such split, or its labels cannot be chosen as the config says.
    """
    source = _open(config, which, dataset or open_dataset(config))
    chosen = _chosen(config, source) if which == "train" else None
    return readable(config, labels.alone(source, chosen) if chosen else source)


def open_splits(config: ConfigDict) -> tuple[Readable, Readable]:
    """Opens the split that the config trains on, and the one that it evaluates on.

    An evaluation split without labels is evaluated by the contrastive loss alone, and refused for
    another objective.

    Raises:
      UserError: There are fewer images than in a batch, or the splits differ in their classes.
      ArgumentError: A class of the evaluation split has no example to learn it from; of many images
        this is not looked at.
    """
    dataset = open_dataset(config)
    train = to_train_on(config, dataset)
    if train.multilabel and config.objective.name != "supervised":
        raise several_labels(config, f"objective.name={config.objective.name}")
    if len(train) < config.train.batch_size:
        raise rules.wrong(
            "train.batch_size",
            config.train.batch_size,
            f"at most the {len(train)} images of {train.split!r}",
        )
    evaluation = open_split(config, "eval", dataset)
    labelled = config.objective.name != "contrastive" and train.num_classes > 0
    if labelled and not evaluation.num_classes:
        raise rules.wrong(
            "data.eval_split",
            config.data.eval_split,
            f"a split with labels for objective.name={config.objective.name}",
        )
    if not train.num_classes:  # There is no classifier that the labels could judge.
        evaluation.num_classes = 0
    if evaluation.num_classes not in (0, train.num_classes):
        raise rules.wrong(
            "data.eval_split",
            config.data.eval_split,
            f"a split with the training split's {train.num_classes} classes",
        )
    from_labels = config.objective.name == "supervised" or config.objective.label_weight > 0
    if labelled and from_labels and max(len(train), len(evaluation)) <= FEW_LABELS:
        found = (split.source.labels() for split in (train, evaluation))
        split, names = config.data.train_split, train.source.class_names
        labels.check_examples(*found, train_split=split, names=names)
    return train, evaluation


def to_train_on(config: ConfigDict, dataset: splits.Splits) -> Readable:
    """The images that a run trains on, with the labels that it sees.

    Args:
      config: The config of the run.
      dataset: The splits of the config, from `open_dataset`.

    Raises:
      ArgumentError: There is no such split, or its labels cannot be chosen as the config says.
    """
    source = _open(config, "train", dataset)
    chosen = _chosen(config, source)
    if chosen is None:
        return readable(config, source)
    # Without a label there is nothing to learn from in a supervised run, and all else learns from
    # every image.
    restricted = labels.alone if config.objective.name == "supervised" else labels.Seen
    return readable(config, restricted(source, chosen))


def open_validation(
    config: ConfigDict, dataset: splits.Splits, used: Iterable[str]
) -> Readable | None:
    """Opens the split to choose between values by: that of the config, or the dataset's own.

    Args:
      config: The config, with data.validation_split.
      dataset: The splits of the config, from `open_dataset`.
      used: The names of the splits that are trained and evaluated on.

    Returns:
      The split; None where the config names none and the dataset has none.
    """
    source = dataset.validation(used, config.data.validation_split)
    return None if source is None else readable(config, source)


def open_all(config: ConfigDict) -> dict[str, Readable]:
    """Opens 'train', with no image held out, and 'eval' where there is such a split.

    Of the training images they are those whose labels the config chooses.
    """
    dataset = open_dataset(config)
    train, evaluation = dataset.train(), dataset.eval()
    chosen = _chosen(config, train)
    opened = {"train": labels.alone(train, chosen) if chosen else train, "eval": evaluation}
    return {name: readable(config, source) for name, source in opened.items() if source is not None}


def open_dataset(config: ConfigDict) -> splits.Splits:
    """Finds the dataset of a config, and its splits."""
    data = config.data
    arguments = {
        "directory": data.dir,
        "train_split": data.train_split,
        "eval_split": data.eval_split,
        "cache_bytes": data.cache_bytes,
        "index_dir": data.index_dir,
        "image_key": data.image_key,
        "label_key": data.label_key,
        "labelled": _labelled(config),
    }
    if _datasets is None:
        return splits.Splits(data.name, **arguments)
    # Records lie where they do, whichever folder keeps their positions.
    key = data.name, *(value for name, value in arguments.items() if name != "index_dir")
    if key not in _datasets:
        _datasets[key] = splits.Splits(data.name, **arguments)
    return _datasets[key]


def indexed_in(config: FrozenConfigDict, workdir: str) -> FrozenConfigDict:
    """The config with a folder for the index of records in a run's bucket, unless it names one.

    A machine that continues or evaluates the run finds there what another one has found.

    Args:
      config: The config of the run.
      workdir: The folder of the run.
    """
    if config.data.index_dir is not None or not is_remote(workdir):
        return config
    return overrides.changed(config, {"data.index_dir": f"{workdir.rstrip('/')}/tfrecord_index"})


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """A context in which a dataset is listed and read once, however often it is opened."""
    global _datasets
    before, _datasets = _datasets, {}
    try:
        yield
    finally:
        _datasets = before


def _open(config: ConfigDict, which: str, dataset: splits.Splits) -> Source:
    return splits.open_split(which, dataset, seed=config.seed, held_out=config.data.held_out)


def _chosen(config: ConfigDict, source: Source) -> labels.Chosen | None:
    """The training images whose labels are seen; None: all of them."""
    data = config.data
    given = [f"data.{key}" for key in rules.LABELS if data[key] is not None]
    if given and source.multilabel:
        raise several_labels(config, f"{given[0]}={data[given[0].removeprefix('data.')]}")
    if data.label_fraction is not None:
        return labels.by_fraction(source, data.label_fraction, seed=data.label_seed)
    if data.labels_per_class is not None:
        return labels.by_class(source, data.labels_per_class, seed=data.label_seed)
    if data.label_list is not None:
        return labels.by_list(source, data.label_list)
    return None


def several_labels(config: ConfigDict, what: str) -> UserError:
    """The error for what takes one label of an image, where the config names a feature of several.

    Args:
      config: The config.
      what: What takes one label, in words.
    """
    return rules.wrong(
        "data.label_key",
        config.data.label_key,
        f"a feature of one label of an image for {what}, or leave out labels (data.num_classes=0)",
    )


def _labelled(config: ConfigDict) -> bool:
    """Whether the labels of the images are used."""
    return config.data.num_classes != 0


def readable(config: ConfigDict, source: Source) -> Readable:
    """A source whose images can be decoded and have labels, as the config says."""
    return Readable(
        source,
        on_bad_image=config.data.on_bad_image,
        labelled=_labelled(config),
        value_range=config.data.value_range,
        channels=config.data.channels,
        keep_bytes=config.data.cache_bytes,
    )

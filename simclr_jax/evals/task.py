"""The task that a protocol works on: a network, the splits, and their features."""

import typing
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict, FrozenConfigDict

from simclr_jax import mesh as meshes
from simclr_jax.augment.host import EVAL_CROP_PROPORTION
from simclr_jax.config import overrides, rules, shipped, sources
from simclr_jax.config.overrides import get, keys
from simclr_jax.config.rules import LABELS, Rule
from simclr_jax.data import labels
from simclr_jax.data.fingerprint import fingerprint
from simclr_jax.data.readable import Readable
from simclr_jax.data.source import FEW_LABELS, has_labels, is_labelled
from simclr_jax.data.splits import Splits
from simclr_jax.errors import UserError
from simclr_jax.evals import features, results
from simclr_jax.evals.features import Features
from simclr_jax.models.simclr import SimCLR
from simclr_jax.run.network import ROWS_PER_DEVICE, Network

# The protocols that can use images of several labels.
MULTILABEL = ("logistic", "transfer", "geometry")

# The keys of the data that have their defaults with another dataset.
_OF_A_DATASET = ("dir", "eval_split", "image_key", "label_key", "value_range")


class Protocol(typing.Protocol):
    """A way to evaluate a network: a module."""

    @property
    def RULES(self) -> Mapping[str, Rule]:  # noqa: N802 (a module's constant)
        """The rules of the protocol's config section, by dotted key."""

    def run(self, task: "Task") -> dict[str, Any] | None:
        """The protocol's part of result.json; None where other commands have work to do first."""

    def in_words(self, result: dict[str, Any]) -> str:
        """A result as a line of text."""


def with_data(run_config: FrozenConfigDict, data: ConfigDict) -> FrozenConfigDict:
    """The config of a run, with the data of an evaluation.

    Args:
      run_config: The config of the run.
      data: The section "data" of the evaluation's config. None leaves a key as in the run, or with
        another data.name as that dataset has it by default. The number of classes is always that
        of these images, and the choice of labels that of the evaluation: a run that has seen few
        labels, or none, can be evaluated with all of them.
    """
    unset = ("num_classes", "validation_split", *rules.LABELS)
    values: dict[str, Any] = dict.fromkeys(unset)
    if data.name is not None:
        values |= {key: None for key in _OF_A_DATASET}
        values["train_split"] = "train"
    values |= {key: data[key] for key in data if data[key] is not None}
    return overrides.changed(run_config, {f"data.{key}": value for key, value in values.items()})


class Task:
    """A network with the images that it is evaluated on, and their features.

    Args:
      config: The config of the evaluation.
      network: The network.
      root: The folder of all results, such as RUN/eval; None: nothing is kept.

    Attributes:
      run_config: The config of the run, with the data of the evaluation.
      extractor: The extractor of the features.
      sources: The splits that were opened so far, by name.

    Raises:
      UserError: The head has no such layer, or there is no dataset to read.
    """

    def __init__(self, config: ConfigDict, network: Network, root: epath.Path | None):
        self.config = config
        self.network = network
        self.run_config = with_data(network.config, config.data)
        self.root = root
        self.sources: dict[str, Readable] = {}
        if self.run_config.data.name is None:
            raise UserError(
                "config.data.name=None: an imported run has no dataset of its own; name one, or "
                "'folder' with config.data.dir"
            )
        layer = config.features.layer
        try:
            self.extractor = self.extractor_of(network.model, network.variables, layer=layer)
        except ValueError as error:
            raise UserError(f"config.features.layer={error}") from error

    def extractor_of(self, model: SimCLR, variables: Any, *, layer: str) -> features.Extractor:
        """The extractor of a layer of a network, for the images as the evaluation sees them.

        Raises:
          ValueError: The network has no such layer.
        """
        data, keys = self.run_config.data, self.config.features
        return features.Extractor(
            model,
            variables,
            layer=layer,
            image_size=data.image_size,
            batch_size=keys.batch_size or ROWS_PER_DEVICE * jax.device_count(),
            transfer_dtype=data.transfer_dtype,
            mesh=meshes.make(),
            crop_proportion=keys.crop,
        )

    @cached_property
    def folder(self) -> epath.Path | None:
        """The folder of the result, ROOT/PROTOCOL/STEP/WHAT; None: it is not kept.

        The splits that the result is of must be open.
        """
        if self.root is None:
            return None
        config = self.config
        values = {key: get(config, key) for key in keys(config)}
        dataset = self.run_config.data.name
        what = results.what(config.protocol, config.features.layer, dataset, values, self._usual)
        return results.place(self.root / config.protocol / self.network.name, what, self.of)

    @property
    def _usual(self) -> dict[str, Any]:
        """The values of the protocol's record by dotted key; none where it has no record."""
        name = f"eval/{self.config.protocol}"
        usual = overrides.load([f"--config={name}"]) if shipped.find(name) else ConfigDict()
        return {key: get(usual, key) for key in keys(usual)}

    @cached_property
    def of(self) -> dict[str, Any]:
        """What the result is computed from, as JSON: the config, the weights and the images."""
        untrained, params = self.network.step is None, self.network.variables["params"]
        config = self.config.to_dict()
        for key in results.HOW:
            section, name = key.split(".")
            config.get(section, {}).pop(name, None)
        return {
            "config": config,
            # Batch norm of an untrained network is calibrated, to other bits on other devices.
            "weights": features.digest(params) if untrained else self._digest,
            # Equal weights may be of runs that see the same images in another way.
            "view": self._view,
            "images": {
                name: fingerprint(source.source, labelled=bool(source.num_classes))
                for name, source in self.sources.items()
            },
        }

    @cached_property
    def dataset(self) -> Splits:
        """The dataset, which is listed once for both splits."""
        return sources.open_dataset(self.run_config)

    @cached_property
    def train(self) -> Readable:
        """The training split."""
        return self._opened("train", sources.open_split(self.run_config, "train", self.dataset))

    @cached_property
    def test(self) -> Readable:
        """The evaluation split."""
        return self._opened("eval", sources.open_split(self.run_config, "eval", self.dataset))

    @cached_property
    def validation(self) -> Readable | None:
        """The split to choose between values by; None where the dataset has none.

        Raises:
          UserError: It is named, and has no labels of the training split's classes.
        """
        used, named = (self.train.split, self.test.split), self.run_config.data.validation_split
        source = sources.open_validation(self.run_config, self.dataset, used)
        if source is not None and source.num_classes != self.train.num_classes:
            if named is None:
                return None
            raise UserError(
                f"config.data.validation_split={named!r}: must have labels of the training split's "
                f"{self.train.num_classes} classes"
            )
        return source and self._opened("validation", source)

    def _opened(self, name: str, source: Readable) -> Readable:
        """A split, which is kept by its name.

        Raises:
          UserError: An image can have several labels, which the protocol cannot use.
        """
        if source.multilabel and self.config.protocol not in MULTILABEL:
            raise sources.several_labels(self.run_config, self.config.protocol)
        return self.sources.setdefault(name, source)

    def open(self, which: str) -> dict[str, Readable]:
        """The split to train on ('train') or to evaluate on ('eval'), or both ('all'), by name.

        Of both, 'train' has all of its images, with none held out.
        """
        if which == "all":
            for name, source in sources.open_all(self.run_config).items():
                self._opened(name, source)
        elif which == "train":
            self.sources["train"] = self.train
        else:
            self.sources["eval"] = self.test
        return self.sources

    def check_labels(self, splits: str = "both") -> None:
        """Checks that both splits have labels of the same classes, or that one has labels.

        Where labels are read in seconds, `check_examples` is asked about both splits as well, which
        protocols ask again about the images that can be read.

        Args:
          splits: The splits that need labels, 'both' or 'eval'.

        Raises:
          UserError, ArgumentError: They do not.
        """
        name, protocol = self.run_config.data.name, self.config.protocol
        opened = {"train_split": self.train} if splits == "both" else {}
        opened["eval_split"] = self.test
        for key, source in opened.items():
            if not source.num_classes or not has_labels(source.source):
                raise UserError(
                    f"config.data.{key}={self.run_config.data[key]!r}: {protocol} needs labels, "
                    f"and {source.split!r} of {name!r} has none; name images with labels"
                )
        classes = [source.num_classes for source in opened.values()]
        if min(classes) < 2 or len(set(classes)) > 1:
            where = "in both splits; they have" if splits == "both" else "in the split; it has"
            raise UserError(
                f"config.data.name={name!r}: {protocol} needs labels of the same classes, two at "
                f"least, {where} {' and '.join(map(str, classes))}"
            )
        if splits == "both" and max(map(len, opened.values())) <= FEW_LABELS:
            self.check_examples(*(source.source.labels() for source in opened.values()))

    def check_examples(self, train: np.ndarray, test: np.ndarray) -> None:
        """Checks that every class of the evaluation split has an example in the training split.

        With several labels an image, a class needs an image without it too.

        Args:
          train: The labels of the training split, (m,) or (m, C).
          test: The labels of the evaluation split, (n,) or (n, C).

        Raises:
          ArgumentError: A class has none.
        """
        split, names = self.run_config.data.train_split, self.train.source.class_names
        labels.check_examples(train, test, train_split=split, names=names)

    def features(
        self,
        source: Readable,
        computes: features.Computes | None = None,
        transform: str = "eval_view of readable images",
    ) -> Features:
        """The features of a split, computed once per checkpoint and kept with the results.

        Unreadable images have none.

        Args:
          source: The images.
          computes: What computes their features; None: the extractor.
          transform: What it does to the images, in words; features of another one are others.
        """
        return features.cached(
            self.root and self.root / "features",
            computes or self.extractor,
            source,
            keep=self.config.features.keep,
            stored_dtype=self.config.features.dtype,
            checkpoint=self._digest,
            transform=transform,
            layer=self.config.features.layer,
            **self._view,
        )

    @property
    def _view(self) -> dict[str, Any]:
        """What the features depend on besides the weights, the layer and the images, as JSON."""
        data, crop = self.run_config.data, self.config.features.crop
        return {
            "image_size": data.image_size,
            "dtype": [self.run_config.model.dtype, data.transfer_dtype],
            "value_range": data.value_range,
            **({} if data.channels == 3 else {"channels": data.channels}),
            # Features of the usual crop have the name that they had before there was another one.
            **({} if crop == EVAL_CROP_PROPORTION else {"crop": crop}),
        }

    @cached_property
    def _digest(self) -> str:
        """The digest of the weights."""
        return features.digest(self.network.variables)

    @property
    def seen(self) -> dict[str, str]:
        """The entry of the result that tells which labels of the training split were chosen.

        Without a choice, and without a training split, there is none.
        """
        chosen = any(self.run_config.data[key] is not None for key in LABELS)
        split = self.sources["train"].split if "train" in self.sources else None
        return {"train_split": split} if chosen and split else {}

    def tested(self, test: Features) -> dict[str, Any]:
        """The entries of the result that describe the evaluation split.

        Args:
          test: The features of the split, without those of unreadable images.
        """
        return {
            "split": self.test.split,
            "num_examples": int(is_labelled(test.labels).sum()),
            "num_classes": self.test.num_classes,
            "unreadable": len(self.test) - len(test.labels),
            "unlabelled": int((~is_labelled(test.labels)).sum()),
        }

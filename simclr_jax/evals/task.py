"""What the protocols share: a run's network, the splits, and their features."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import jax
from etils import epath
from ml_collections import ConfigDict, FrozenConfigDict

from simclr_jax import mesh as meshes
from simclr_jax.config import overrides, parts
from simclr_jax.config.rules import Rule
from simclr_jax.data.source import Readable
from simclr_jax.errors import UserError
from simclr_jax.evals import features
from simclr_jax.run.network import ROWS_PER_DEVICE, Network


class Protocol(NamedTuple):
    """A way to evaluate a network.

    Attributes:
      run: What it does with a `Task`; returns the protocol's part of result.json.
      rules: The rows of the keys of its config section.
      in_words: The result in a line for people.
    """

    run: Callable[["Task"], dict[str, Any]]
    rules: Mapping[str, Rule]
    in_words: Callable[[dict[str, Any]], str]


def with_data(run_config: FrozenConfigDict, data: ConfigDict) -> FrozenConfigDict:
    """The run's config, reading the images that an evaluation's data keys name."""
    values: dict[str, Any] = {}
    if data.name is not None:
        values = {"dir": None, "train_split": "train", "eval_split": None, "num_classes": None}
    values |= {key: data[key] for key in data if data[key] is not None}
    return overrides.changed(run_config, {f"data.{key}": value for key, value in values.items()})


class Task:
    """What a protocol works on: a network, the images that it is evaluated on, their features.

    Args:
      config: The config of the evaluation.
      network: The network that is evaluated.
      root: The folder of its run.

    Raises:
      UserError: The head has no such layer, or there is no dataset to read.
    """

    def __init__(self, config: ConfigDict, network: Network, root: epath.Path):
        self.config = config
        self.network = network
        self.run_config = with_data(network.config, config.data)
        self.root = root
        if self.run_config.data.name is None:
            raise UserError(
                "config.data.name=None: an imported run has no dataset of its own; name one, or "
                "'folder' with config.data.dir"
            )
        try:
            self.extractor = features.Extractor(
                network.model,
                network.variables,
                layer=config.features.layer,
                image_size=self.run_config.data.image_size,
                batch_size=config.features.batch_size or ROWS_PER_DEVICE * jax.device_count(),
                transfer_dtype=self.run_config.data.transfer_dtype,
                mesh=meshes.make(),
            )
        except ValueError as error:
            raise UserError(f"config.features.layer={error}") from error

    @property
    def folder(self) -> epath.Path:
        """Where the result is kept."""
        return self.root / "eval" / self.config.protocol / self.network.name

    @cached_property
    def train(self) -> Readable:
        """The training split."""
        return parts.open_split(self.run_config, "train")

    @cached_property
    def test(self) -> Readable:
        """The split that is evaluated on."""
        return parts.open_split(self.run_config, "eval")

    def check_labels(self) -> None:
        """Raises UserError unless both splits have labels of the same classes."""
        classes = self.train.num_classes, self.test.num_classes
        if classes[0] < 2 or classes[0] != classes[1]:
            raise UserError(
                f"config.data.name={self.run_config.data.name!r}: {self.config.protocol} needs "
                f"labels of the same classes in both splits; they have {classes[0]} and "
                f"{classes[1]}"
            )

    def features(self, source: Readable) -> features.Features:
        """The features of a split, computed once a checkpoint and kept in the run."""
        return features.cached(
            self.root / "eval" / "features",
            self.extractor,
            source,
            checkpoint=self._digest,
            transform="eval_view",
            layer=self.config.features.layer,
            image_size=self.run_config.data.image_size,
            dtype=[self.run_config.model.dtype, self.run_config.data.transfer_dtype],
        )

    @cached_property
    def _digest(self) -> str:
        return features.digest(self.network.variables)

    @property
    def tested(self) -> dict[str, Any]:
        """The result's keys that say what was tested."""
        return {"split": self.test.split, "num_examples": len(self.test)}

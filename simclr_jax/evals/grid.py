"""The points of a grid of learning rates and weight decays, and what was found at each of them.

    FOLDER/points/OF/lr=LR,decay=DECAY.json     OF is a digest of all that it is computed from

A point is written when it is whole. So an evaluation that was stopped goes on with the next one,
and several commands can share a grid.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from simclr_jax import processes
from simclr_jax.config.rules import Rule
from simclr_jax.evals import results
from simclr_jax.store import files

# The rule of a part of a grid.
SHARE = Rule(
    lambda value: [type(each) for each in value] == [int, int] and 0 <= value[0] < value[1],
    "two whole numbers (i,n), 0 <= i < n",
)


class Point(NamedTuple):
    """A point of a grid.

    Attributes:
      lr: The peak learning rate.
      decay: The weight decay of an update, lr · weight_decay.
    """

    lr: float
    decay: float

    @property
    def weight_decay(self) -> float:
        """The coefficient of the weight decay in the loss."""
        return self.decay / self.lr

    @property
    def name(self) -> str:
        """The point as the name of a file.

        >>> Point(1e-4, 0.0).name
        'lr=0.0001,decay=0'
        """
        return f"lr={self.lr:.6g},decay={self.decay:.6g}"


def points(keys: ConfigDict) -> list[Point]:
    """All points of a grid: each rate without a decay, and with each decay.

    >>> keys = ConfigDict(dict(lr_range=(0.01, 1.0), lr_count=2, decay_range=(1, 1), decay_count=1))
    >>> [point.name for point in points(keys)]
    ['lr=0.01,decay=0', 'lr=0.01,decay=1', 'lr=1,decay=0', 'lr=1,decay=1']

    Args:
      keys: A section with lr_range, lr_count, decay_range and decay_count.
    """
    (slowest, fastest), (least, most) = keys.lr_range, keys.decay_range
    rates = np.geomspace(slowest, fastest, keys.lr_count)
    decays = [0.0, *np.geomspace(least, most, keys.decay_count)]
    return [Point(float(rate), float(decay)) for rate in rates for decay in decays]


class Found:
    """What was found at the points of a grid, as files.

    Args:
      folder: The folder of the result; None: nothing is kept.
      of: All that it is computed from, as JSON.
    """

    def __init__(self, folder: epath.Path | None, of: Mapping[str, Any]):
        digest = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]
        self._folder = folder and folder / "points" / digest
        self._kept: dict[str, dict[str, Any]] = {}

    def __getitem__(self, name: str) -> dict[str, Any] | None:
        """What was found at a point, in all processes; None where one of them has nothing."""
        if name not in self._kept and self._folder is not None:
            stored = results.read(self._folder / f"{name}.json")
            self._kept |= {} if stored is None else {name: stored}
        found = self._kept.get(name)
        return found if processes.all_have(found is not None) else None

    def __setitem__(self, name: str, found: dict[str, Any]) -> None:
        self._kept[name] = found
        if self._folder is not None and processes.is_primary():
            self._folder.mkdir(parents=True, exist_ok=True)
            files.write_json(self._folder / f"{name}.json", found)

"""Two splits of a dataset, or more, as one."""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from simclr_jax.data.source import File, Images, Source


class Joined:
    """The images of several sources of the same classes, one source after another.

    It implements `source.Source`, which documents its methods.

    Args:
      sources: The sources, one at least.
    """

    def __init__(self, sources: Sequence[Source]):
        first = sources[0]
        self._sources = sources
        self._starts = np.cumsum([0, *map(len, sources)])
        self.num_classes, self.class_names = first.num_classes, first.class_names
        self.features, self.multilabel = first.features, first.multilabel
        self.split = " + ".join(source.split for source in sources)
        self.place = first.place

    def __len__(self) -> int:
        return int(self._starts[-1])

    def name(self, index: int) -> str:
        of = self._of(np.array([index]))[0]
        return self._sources[of].name(int(index - self._starts[of]))

    def files(self) -> Iterable[File]:
        return itertools.chain.from_iterable(source.files() for source in self._sources)

    def load(self, indices: Sequence[int]) -> tuple[Images, np.ndarray]:
        index = np.asarray(indices)
        images: Images = [""] * len(index)
        of, order, labels = self._of(index), [], []
        for number in np.unique(of):
            rows = np.flatnonzero(of == number)
            loaded, found = self._sources[number].load(index[rows] - self._starts[number])
            for row, image in zip(rows.tolist(), loaded, strict=True):
                images[row] = image
            order.append(rows)
            labels.append(found)
        return images, np.concatenate(labels)[np.argsort(np.concatenate(order))]

    def labels(self) -> np.ndarray:
        return np.concatenate([source.labels() for source in self._sources])

    def _of(self, indices: np.ndarray) -> np.ndarray:
        """The number of the source of each image."""
        return np.searchsorted(self._starts, indices, side="right") - 1

"""A dataset's splits: what is trained on, what is evaluated on, what is held out."""

from collections.abc import Callable, Sequence

import numpy as np

from simclr_jax.data import folder, tfds
from simclr_jax.data.digits import Digits
from simclr_jax.data.order import permutation
from simclr_jax.data.source import Images, Source
from simclr_jax.errors import ArgumentError

EVAL_SPLITS = ("test", "val", "validation")
_HELD_OUT_STREAM = 2**32  # a permutation stream that no epoch number reaches


class Splits:
    """A dataset's splits, as a config's data keys name them.

    Args:
      name: 'digits', 'folder', or a TFDS name.
      directory: the image folder, or TFDS's data_dir (None: TFDS_DATA_DIR, else its default).
      train_split: the split that is trained on.
      eval_split: the one that is evaluated on. None: test, else val or validation, else none.
      cache_bytes: TFRecord files up to this size together are held in memory.

    Raises:
      ArgumentError: there is no such dataset, directory or split, or there are no images in it.
    """

    def __init__(
        self,
        name: str,
        *,
        directory: str | None,
        train_split: str,
        eval_split: str | None,
        cache_bytes: int,
    ):
        names: Sequence[str]
        self._opener: Callable[[str], Source]
        if name == "digits":
            names, self._opener = ("train", "test"), Digits
        elif name == "folder":
            images = folder.Root(directory)
            names, self._opener = images.splits, images.open
        else:
            dataset = tfds.Dataset(name, directory, cache_bytes=cache_bytes)
            names, self._opener = dataset.splits, dataset.open
        self._train = train_split
        self._eval = eval_split or next((split for split in EVAL_SPLITS if split in names), None)

    def train(self) -> Source:
        """All of train_split."""
        return self._open("train_split", self._train)

    @property
    def has_eval(self) -> bool:
        """Whether a split to evaluate on is named or found."""
        return self._eval is not None

    def eval(self) -> Source | None:
        """The split that is evaluated on, if one is named or found."""
        return None if self._eval is None else self._open("eval_split", self._eval)

    def _open(self, argument: str, split: str) -> Source:
        try:
            source = self._opener(split)
        except ArgumentError as error:
            if error.argument != "split":
                raise
            raise ArgumentError(argument, split, error.reason) from error
        source.split = split
        return source


def open_split(which: str, splits: Splits, *, seed: int, held_out: float) -> Source:
    """Opens what is trained on ('train') or evaluated on ('eval').

    Without a split to evaluate on, that is a share `held_out` of the training images, chosen by
    `seed`, that training does not see.

    Raises:
      ArgumentError: as `Splits`, or the share is none or all of the images.
    """
    if which == "eval" and (source := splits.eval()) is not None:
        return source
    source = splits.train()
    if splits.has_eval:
        return source
    order = permutation(len(source), seed=seed, stream=_HELD_OUT_STREAM)
    count = round(len(source) * held_out)
    if not 0 < count < len(source):
        raise ArgumentError(
            "held_out",
            held_out,
            f"is {count} of {len(source)} images; must leave some on both sides",
        )
    rows, name = {
        "eval": (order[:count], f"{count} held out of {source.split} by seed {seed}"),
        "train": (order[count:], f"{source.split} but {count} held out by seed {seed}"),
    }[which]
    return Subset(source, np.sort(rows), name)


class Subset:
    """Some of a source's images."""

    def __init__(self, source: Source, indices: np.ndarray, name: str):
        self._source = source
        self._indices = indices
        self.num_classes = source.num_classes
        self.split = name
        self.place = source.place

    def __len__(self) -> int:
        return len(self._indices)

    def name(self, index: int) -> str:
        return self._source.name(int(self._indices[index]))

    def fingerprint(self) -> str:
        return f"{self._source.fingerprint()} {self.split}"

    def load(self, indices: Sequence[int]) -> tuple[Images, np.ndarray]:
        return self._source.load(self._indices[np.asarray(indices)])

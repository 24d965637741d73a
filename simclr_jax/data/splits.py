"""The splits of a dataset that a run trains and evaluates on."""

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from simclr_jax.data import folder, tfds
from simclr_jax.data.arrangement import role
from simclr_jax.data.digits import Digits
from simclr_jax.data.order import permutation
from simclr_jax.data.source import File, Images, Source
from simclr_jax.errors import ArgumentError

# The splits to evaluate on if the config names none; the first one that exists is used.
EVAL_SPLITS = ("test", "val", "validation")
_HELD_OUT_STREAM = 2**32  # The stream of the permutation. It is larger than any epoch's number.


class Splits:
    """The splits of a dataset, as the config names them.

    Args:
      name: The dataset: 'digits', 'folder' or the name of a TFDS dataset.
      directory: The folder of images, or the data_dir of TFDS. With None it is the environment
        variable TFDS_DATA_DIR, or else the default of TFDS.
      train_split: The split to train on.
      eval_split: The split to evaluate on. With None it is the first of `EVAL_SPLITS` that exists
        and has labels, or else the first that exists, if any.
      cache_bytes: The largest total size in bytes of TFRecord files that are read into memory.
      index_dir: The folder where the positions of records are kept; see `tfds.Dataset`.
      image_key: The feature of a TFDS dataset that is the image; see `tfds.Dataset`.
      label_key: The feature of a TFDS dataset that is the label.
      labelled: Whether the labels are used.

    Raises:
      ArgumentError: There is no such dataset, feature or directory. `train` and `eval` raise it
        for a split that does not exist or has no images.
    """

    def __init__(
        self,
        name: str,
        *,
        directory: str | None,
        train_split: str,
        eval_split: str | None,
        cache_bytes: int,
        index_dir: str | None = None,
        image_key: str | None = None,
        label_key: str | None = None,
        labelled: bool = True,
    ):
        if name in ("digits", "folder"):
            for argument, value in (("image_key", image_key), ("label_key", label_key)):
                if value is not None:
                    raise ArgumentError(argument, value, f"{name!r} has no features to choose from")
        names: Sequence[str]
        own: Sequence[str] = ()  # All splits, whether or not they are taken for the evaluation.
        self._opener: Callable[[str], Source]
        if name == "digits":
            names, self._opener = ("train", "test"), Digits
        elif name == "folder":
            images = folder.Root(directory, train_split=train_split, eval_split=eval_split)
            names, self._opener = (), images.open
            eval_split = images.evaluation
            own = images.splits
        else:
            dataset = tfds.Dataset(
                name,
                directory,
                cache_bytes=cache_bytes,
                index_dir=index_dir,
                image_key=image_key,
                label_key=label_key,
                labelled=labelled,
            )
            names, self._opener = dataset.splits, dataset.open
            own = names
        self._train = train_split
        self._opened: dict[str, Source] = {}  # The splits that were opened, by name.
        self._labelled = labelled
        self._validation = [split for split in own if role(split) == "val"]
        found = [split for split in EVAL_SPLITS if split in names]
        self._eval = found if eval_split is None else [eval_split]

    def train(self) -> Source:
        """Opens the split to train on, with all of its images."""
        return self._open("train_split", self._train)

    @property
    def has_eval(self) -> bool:
        """Whether there is a split to evaluate on."""
        return bool(self._eval)

    def eval(self) -> Source | None:
        """Opens the split to evaluate on, or returns None if there is none.

        Of several, the first one with labels is used, or, if none has labels, the first one.
        """
        first = None
        for split in self._eval:
            source = self._open("eval_split", split)
            if source.num_classes or not self._labelled:
                return source
            first = first or source
        return first

    def validation(self, used: Iterable[str], named: str | None = None) -> Source | None:
        """Opens the split to choose between values by, or returns None if there is none.

        Args:
          used: The names of the splits that are trained and evaluated on. Where one of them has
            the images for validation, the dataset has no others.
          named: The name of the split; None: the dataset's own split for validation.

        Raises:
          ArgumentError: There is no split of that name.
        """
        if named is not None:
            return self._open("validation_split", named)
        words = [word for split in used for word in re.findall(r"\w+|^\.$", split)]
        if not self._validation or any(
            word in (".", "all") or role(word) == "val" for word in words
        ):
            return None
        return self._open("validation_split", self._validation[0])

    def _open(self, argument: str, split: str) -> Source:
        """Opens a split, at the first call."""
        if split in self._opened:
            return self._opened[split]
        try:
            source = self._opener(split)
        except ArgumentError as error:
            if error.argument != "split":
                raise
            raise ArgumentError(argument, split, error.reason) from error
        source.split = split
        self._opened[split] = source
        return source


def open_split(which: str, splits: Splits, *, seed: int, held_out: float) -> Source:
    """Opens the images to train on or to evaluate on.

    If the dataset has no split to evaluate on, part of the training images is used for evaluation
    and not for training.

    Args:
      which: The use of the images, 'train' or 'eval'.
      splits: The splits of the dataset.
      seed: The seed of the choice of the images for evaluation.
      held_out: The fraction of the training images that is used for evaluation, if there is no
        split for it.

    Raises:
      ArgumentError: There is no such split, or the fraction gives none or all of the images.
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
            f"is {count} of {len(source)} images; training and evaluation both need at least one",
        )
    rows, name = {
        "eval": (order[:count], f"{count} held out of {source.split} by seed {seed}"),
        "train": (order[count:], f"{source.split} but {count} held out by seed {seed}"),
    }[which]
    return Subset(source, np.sort(rows), name)


class Subset:
    """A subset of the images of a source.

    It implements `source.Source`, which documents its methods.

    Args:
      source: The source.
      indices: The indices of the images in the source, (n,) int.
      name: The name of the subset, used as that of its split.
    """

    def __init__(self, source: Source, indices: np.ndarray, name: str):
        self._source = source
        self._indices = indices
        self.num_classes, self.class_names = source.num_classes, source.class_names
        self.multilabel = source.multilabel
        self.features = source.features
        self.split = name
        self.place = source.place

    def __len__(self) -> int:
        return len(self._indices)

    def name(self, index: int) -> str:
        return self._source.name(int(self._indices[index]))

    def files(self) -> Iterable[File]:
        return self._source.files()

    def load(self, indices: Sequence[int]) -> tuple[Images, np.ndarray]:
        return self._source.load(self._indices[np.asarray(indices)])

    def labels(self) -> np.ndarray:
        return self._source.labels()[self._indices]

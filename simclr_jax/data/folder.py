"""A dataset in a folder of image files, whose subfolders are the classes."""

from __future__ import annotations

import collections
import itertools
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from etils import epath, epy

from simclr_jax.data import arrangement
from simclr_jax.data.listing import ENDINGS, Listing, files_below
from simclr_jax.data.reads import Reads
from simclr_jax.data.source import File, Images
from simclr_jax.errors import ArgumentError
from simclr_jax.store import outage
from simclr_jax.store.files import as_bytes, is_remote

with epy.lazy_imports():
    import tensorflow as tf

_THREADS = 16  # The number of files that are read at a time.
_STATES = 1024  # The number of files that a thread asks for their states in one go.
_KINDS = 10  # The number of kinds of files left out that are named.
_log = logging.getLogger(__name__)


class Root:
    """The folder of a dataset, with its splits and classes, which is listed once.

    Folders with usual names, such as train/ and val/, are the splits; `arrangement.arrange` finds
    them. Where there are none, all images are the split 'train'. The folders in a split are the
    classes. A split none of whose folders is a class of the training split has no labels.

    Args:
      directory: The path of the folder, local or in a bucket.
      train_split: The split to train on: a folder's name or path, '.' for all images, or 'train'.
      eval_split: The split to evaluate on, named likewise, or None for the first one by name that
        has labels, if any has.

    Attributes:
      evaluation: The split to evaluate on, or None if there is none.
      splits: The names of the folders that are splits.
      classes: The names of the classes.

    Raises:
      ArgumentError: There is no such folder or split, or it is not clear which folders are what.
    """

    def __init__(
        self, directory: str | None, *, train_split: str = "train", eval_split: str | None = None
    ):
        if not directory:
            raise ArgumentError("directory", directory, "a folder of images needs its path")
        self._path = epath.Path(directory).expanduser()
        if not outage.is_dir(self._path):
            raise ArgumentError("directory", directory, "no such folder")
        with ThreadPoolExecutor(_THREADS) as pool:
            self._listing = files_below(self._path, pool)
        if self._listing.left_out:
            _log.warning("%s: left out %s", self._path, _in_words(self._listing))
        self._folders = collections.Counter(
            image[: image.rfind("/") + 1] for image in self._listing.images
        )
        self._layout = arrangement.arrange(self._folders)
        self.splits = self._layout.splits
        self._without = ""  # The prefix of what is not trained on.
        explicit = train_split != "train" or eval_split is not None
        if self._layout.unclear and not explicit:
            raise ArgumentError("layout", directory, self._layout.unclear)
        self._train_split = train_split
        self._train = self._find(train_split, "train_split")
        self._trained: arrangement.Folders = self._folders
        test = self._find(eval_split, "eval_split") if eval_split else self._train
        if test != self._train and test.startswith(self._train):
            self._leave_out(test)
        named = train_split != "train"  # The evaluation's name tells nothing of the classes.
        unclear = None if named else arrangement.not_classes(self._trained, self._train)
        if unclear:
            raise ArgumentError("layout", directory, unclear)
        self._choose(eval_split, test)
        self._explain()

    def _leave_out(self, test: str) -> None:
        """Keeps the split to evaluate on, which lies in the one to train on, out of it."""
        self._without = test
        self._trained = {
            folder: count for folder, count in self._folders.items() if not folder.startswith(test)
        }
        self._train = arrangement.below_single_folders(self._trained, self._train)

    def _choose(self, eval_split: str | None, test: str) -> None:
        """Finds the classes, and the split to evaluate on where none is named.

        Args:
          eval_split: The split to evaluate on that is named, if any is.
          test: Its prefix; where none is named, that of the split to train on.
        """
        own = self._names(self._train)
        usual = {name: self._names(self._find(name)) for name in self._layout.splits[1:]}
        found = [*usual.values(), self._names(test)]
        classes = own.union(*(names for names in found if names & own))
        self.classes = sorted(classes, key=as_bytes) if len(classes) > 1 else []
        known = [name for name in usual if arrangement.role(name) in ("test", "val")]
        labelled = [name for name in known if usual[name] & own]
        self.evaluation = eval_split or next(iter(labelled or known), None)

    def open(self, split: str) -> Folder:
        """Opens a split.

        Raises:
          ArgumentError: There is no such split, or there are no images in it.
        """
        prefix = self._train if split == self._train_split else self._find(split)
        images = [image for image in self._listing.images if self._has(image, prefix)]
        if not images:
            folder, left_out = str(self._path / prefix), _in_words(self._listing)
            reason = f"no images in it ({', '.join(ENDINGS)})"
            reason += f", but {left_out}" if left_out else ""
            raise ArgumentError("directory", folder, reason)
        names, known = [image[len(prefix) :] for image in images], self._listing.states
        states = {
            name: known[image] for name, image in zip(names, images, strict=True) if image in known
        }
        labelled = self._names(prefix) & self._names(self._train)
        return Folder(self._path / prefix, names, self.classes if labelled else [], states)

    def _has(self, image: str, prefix: str) -> bool:
        """Whether an image is in a split."""
        left_out = self._without and prefix == self._train and image.startswith(self._without)
        return image.startswith(prefix) and not left_out

    def _find(self, split: str, argument: str = "split") -> str:
        """The prefix of the folder in which the classes of a split are."""
        prefix = arrangement.find(self._folders, self._layout, split)
        a_class = not self._layout.splits and not self._layout.unclear
        if split == "train" and (a_class or prefix is None):
            prefix = self._layout.base  # All images are to train on.
        if prefix is None:
            names = ", ".join(arrangement.tops(self._folders, self._layout.base)[0])
            reason = f"the folder has {names or 'no folders with images'}"
            raise ArgumentError(argument, split, reason)
        return arrangement.below_single_folders(self._folders, prefix)

    def _names(self, prefix: str) -> set[str]:
        """The folders in a split, or none where some images lie beside them."""
        folders = self._trained if prefix == self._train else self._folders
        names, loose = arrangement.tops(folders, prefix)
        return set() if loose else set(names)

    def _explain(self) -> None:
        """Logs what is guessed from the folders, and what is left out by it."""
        names, loose = arrangement.tops(self._trained, self._train)
        if names and loose:
            _log.warning("some images lie in folders and some do not: treated as unlabelled")
        if self._layout.base or (self._train and not self._layout.splits):
            _log.warning(
                "the classes and splits are looked for in %r", self._train or self._layout.base
            )
        beside, alone = arrangement.tops(self._folders, self._layout.base)
        unused = [repr(name) for name in beside if name not in self._layout.splits]
        if self._layout.splits and (unused or alone):
            left_out = ", ".join(unused + [f"{alone} images"] * bool(alone))
            _log.warning("left out beside the splits: %s", left_out)
        if self.evaluation is None or not self.classes:
            return
        prefix = self._find(self.evaluation)
        own, found = self._names(self._train), self._names(prefix)
        if not found & own:
            names, loose = arrangement.tops(self._folders, prefix)
            reason = "none of its folders is a class of the training split"
            if loose and own & set(names):
                reason = f"{loose} of its images lie beside the folders of its classes"
            _log.warning("the split %r has no labels: %s", self.evaluation, reason)
        elif found - own:
            text = "the split %r has classes that the training split has not: %s"
            _log.warning(text, self.evaluation, arrangement.listed(sorted(found - own)))


def _in_words(listing: Listing) -> str:
    """The files that are left out, such as '20 .heic, 1 hidden'."""
    kinds = listing.left_out.most_common()
    others = sum(count for _, count in kinds[_KINDS:])
    words = [f"{count} {kind}" for kind, count in kinds[:_KINDS]]
    return ", ".join(words + [f"{others} others"] * bool(others))


class Folder:
    """The images of one split, ordered by their path.

    It implements `source.Source`, which documents its methods.

    Args:
      folder: The folder of the split.
      files: The paths of the images, relative to the folder.
      classes: The names of the classes, or none for unlabelled images.
      states: The size and the time of change of files, by path, as far as they are known.
    """

    split = ""
    multilabel = False
    features: tuple[str, ...] = ()

    def __init__(
        self,
        folder: epath.Path,
        files: list[str],
        classes: list[str],
        states: dict[str, tuple[int, int]],
    ):
        self._folder = folder
        self.place = str(folder)
        self._files = files
        self._states = states
        self.class_names: tuple[str, ...] = tuple(classes)
        self.num_classes = len(classes)
        number = {name: label for label, name in enumerate(classes)}
        self._labels = np.array(
            [number[file.split("/")[0]] if classes else -1 for file in files], np.int32
        )
        self._on_disk = not is_remote(folder)
        self._reads = Reads(_THREADS, remote=not self._on_disk)

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        return self._files[index]

    def files(self) -> list[File]:
        # A task for each file would take more memory and time than the files' states.
        parts = [self._files[k : k + _STATES] for k in range(0, len(self._files), _STATES)]
        found = self._reads.pool.map(self._files_of, parts)
        return list(itertools.chain.from_iterable(found))

    def _files_of(self, names: list[str]) -> list[File]:
        """The states of files, by plain paths where they are on a disk and there."""
        if not self._on_disk:
            return list(map(self._file, names))
        folder, found = self.place, []
        for name in names:
            try:
                state = os.stat(f"{folder}/{name}")
                found.append(File(name, state.st_size, state.st_mtime_ns))
            except OSError:
                found.append(self._file(name))
        return found

    def _file(self, name: str) -> File:
        if name in self._states:
            return File(name, *self._states[name])
        path = self._folder / name
        try:
            if is_remote(path):
                found = outage.patiently(path.stat, path)
                return File(name, found.length, int(1e9 * found.mtime))
            stat = outage.patiently(lambda: os.stat(path), path)
        except (OSError, tf.errors.OpError):  # The file was deleted since it was listed.
            return File(name, 0, 0)
        return File(name, stat.st_size, stat.st_mtime_ns)

    def load(self, indices: Sequence[int]) -> tuple[Images, np.ndarray]:
        return self._reads.map(self._read, indices), self._labels[np.asarray(indices)]

    def labels(self) -> np.ndarray:
        return self._labels

    def _read(self, index: int) -> bytes | str:
        try:
            if self._on_disk:  # Without objects for the path, which take longer than a small file.
                path = f"{self.place}/{self._files[index]}"
                return outage.patiently(lambda: _content(path), path)
            remote = self._folder / self._files[index]
            return outage.patiently(remote.read_bytes, remote)
        except (OSError, tf.errors.OpError):  # The file was deleted since it was listed.
            return outage.MISSING


def _content(path: str) -> bytes:
    """The content of a file on a disk."""
    with open(path, "rb", buffering=0) as file:
        return file.read()

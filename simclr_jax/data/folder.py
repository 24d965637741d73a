"""A dataset in a folder of image files, whose subfolders are the classes."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
from etils import epath

from simclr_jax.data.source import File, Images
from simclr_jax.errors import ArgumentError
from simclr_jax.store import outage

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")  # The extensions of image files.
_log = logging.getLogger(__name__)

SPLITS = ("train", "test", "val", "validation")  # The names of folders that can be splits.


class Root:
    """The folder of a dataset, with its splits.

    The folders train/, test/, val/ and validation/ are the splits if train/ is there together with
    another of them, or alone. Otherwise the full folder is the split 'train'.

    Args:
      directory: The path of the folder, local or in a bucket.

    Raises:
      ArgumentError: No directory is given, or there is no such folder.
    """

    def __init__(self, directory: str | None):
        if not directory:
            raise ArgumentError("directory", directory, "a folder of images needs its path")
        path = epath.Path(directory).expanduser()
        if not outage.is_dir(path):
            raise ArgumentError("directory", directory, "no such folder")
        visible = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
        found = [name for name in SPLITS if name in visible and (path / name).is_dir()]
        # A lone train/ among other folders is a class of that name, not a split.
        if "train" not in found or (len(found) == 1 and len(visible) > 1):
            found = []
        self._folders = {name: path / name for name in found} or {"train": path}
        self.splits = tuple(self._folders)
        # All splits share one list of classes, so that a label means the same in each of them.
        self._files = {name: _images_below(folder) for name, folder in self._folders.items()}
        self._classes = _classes([file for files in self._files.values() for file in files])

    def open(self, split: str) -> "Folder":
        """Opens a split.

        Raises:
          ArgumentError: There is no such split, or there are no images in it.
        """
        if split not in self._folders:
            reason = f"the folder has the splits {', '.join(self.splits)}"
            raise ArgumentError("split", split, reason)
        files = self._files[split]
        if not files:
            folder = str(self._folders[split])
            raise ArgumentError("directory", folder, f"no images in it ({', '.join(EXTENSIONS)})")
        return Folder(self._folders[split], files, self._classes)


class Folder:
    """The images of one split, ordered by their path.

    It implements `source.Source`, which documents its methods.

    Args:
      folder: The folder of the split.
      files: The paths of the images, relative to the folder.
      classes: The names of the classes, or none for unlabelled images.
    """

    split = ""

    def __init__(self, folder: epath.Path, files: list[str], classes: list[str]):
        self._folder = folder
        self.place = str(folder)
        self._files = files
        self.num_classes = len(classes)
        number = {name: label for label, name in enumerate(classes)}
        self._labels = np.array(
            [number[file.split("/")[0]] if classes else -1 for file in files], np.int32
        )
        self._pool = ThreadPoolExecutor(16)

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        return self._files[index]

    def files(self) -> list[File]:
        return list(self._pool.map(self._file, self._files))

    def _file(self, name: str) -> File:
        path = self._folder / name
        try:
            stat = outage.patiently(lambda: tf.io.gfile.stat(os.fsencode(path)), path)
        except (OSError, tf.errors.OpError):  # The file was deleted since it was listed.
            return File(name, 0, 0)
        return File(name, stat.length, stat.mtime_nsec)

    def load(self, indices: Sequence[int]) -> tuple[Images, np.ndarray]:
        return list(self._pool.map(self._read, indices)), self._labels[np.asarray(indices)]

    def _read(self, index: int) -> bytes | str:
        path = self._folder / self._files[index]
        try:
            return outage.patiently(path.read_bytes, path)
        except (OSError, tf.errors.OpError):  # The file was deleted since it was listed.
            return outage.MISSING


def _images_below(folder: epath.Path) -> list[str]:
    """The relative paths of all images below a folder, sorted by their bytes.

    Hidden files and folders are left out.
    """
    root = os.fspath(folder)
    files = []
    for parent, folders, names in folder.walk() if "://" in root else os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.fspath(parent)[len(root) :].strip("/")
        if any(part.startswith(".") for part in below.split("/") if part):
            continue
        for name in names:
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                files.append(f"{below}/{name}" if below else name)
    return sorted(files, key=lambda file: file.encode("utf-8", "surrogateescape"))


def _classes(files: list[str]) -> list[str]:
    """The names of the folders with images, sorted, which are the classes.

    There are no classes if a file lies outside of the folders, or all files are in one folder.
    """
    names = {file.split("/")[0] if "/" in file else "" for file in files}
    if "" in names and len(names) > 1:
        _log.warning("some images lie in folders and some do not: treated as unlabelled")
    return sorted(names) if "" not in names and len(names) > 1 else []

"""Exports the features of every image as a NumPy archive and a Parquet table."""

from __future__ import annotations

import sys
import tempfile
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from etils import epath, epy

from simclr_jax import processes
from simclr_jax.config.rules import anything, one_of
from simclr_jax.config.sources import open_all
from simclr_jax.data.source import Readable
from simclr_jax.errors import UserError
from simclr_jax.evals.features import Extractor
from simclr_jax.evals.task import Task
from simclr_jax.run.progress import Count
from simclr_jax.store import files

with epy.lazy_imports():
    import pyarrow as pa
    import pyarrow.parquet as pq

# The rules of the config section "embed".
RULES = {
    "embed.split": one_of("train", "eval", "all"),
    "embed.dir": anything("a folder"),
}
FILES = ("features.npz", "features.parquet")  # The names of the files, in this order.


def run(task: Task) -> dict[str, Any]:
    """Writes the features of one split or of both; returns its part of result.json.

    Raises:
      UserError: The files cannot be written.
    """
    keys = task.config.embed
    if keys.split == "all":
        sources = open_all(task.run_config)
    else:
        sources = {keys.split: task.train if keys.split == "train" else task.test}
    folder = epath.Path(keys.dir).expanduser() if keys.dir else task.folder
    return {"split": keys.split, **write_features(task.extractor, sources, folder)}


def in_words(result: dict[str, Any]) -> str:
    """The number of exported images, as text.

    >>> in_words({"num_examples": 8, "dataset": "folder", "unreadable": 2})
    '8 images of folder, 2 left out'
    """
    left_out = f", {result['unreadable']} left out" if result["unreadable"] else ""
    return f"{result['num_examples']} images of {result['dataset']}{left_out}"


def write_features(
    extractor: Extractor, sources: Mapping[str, Readable], folder: epath.Path
) -> dict[str, Any]:
    """Writes features.npz and features.parquet with one row per image, in the sources' order.

    A row has split, name (the path of the file, or the position in the dataset), label (where any
    split has labels) and features (F,) float32. An image without a label has null in the table and
    -1 in the archive; an unreadable image has no row. Features are written as they are computed, so
    memory does not grow with their number.

    Args:
      extractor: The extractor of the features.
      sources: The images by the name of the split.
      folder: The folder of the files, which are replaced when all features are written.

    Returns:
      num_examples, dim (F), unreadable (images left out), images_per_second (without the
      first batch, which compiles) and files (their paths).
    """
    labelled = any(source.num_classes for source in sources.values())
    count = Count("embedded", sum(map(len, sources.values())), sys.stderr)
    total = dim = 0
    sinks: list[Archive | Table] = []
    with ExitStack() as stack:
        if processes.is_primary():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                paths = stack.enter_context(files.replacing(*(folder / name for name in FILES)))
                archive, table = (stack.enter_context(path.open("wb")) for path in paths)
            except OSError as error:
                raise UserError(
                    f"config.embed.dir={str(folder)!r}: cannot be written ({error.strerror})"
                ) from error
            sinks = [Archive(archive, labelled=labelled), Table(table, labelled=labelled)]
        for split, source in sources.items():
            start = 0
            for batch, readable in extractor.batches(source):
                indices = start + np.flatnonzero(readable)
                start, dim = start + len(readable), batch.x.shape[1]
                total += len(indices)
                # A table without rows would have columns without types.
                for sink in sinks if len(indices) else ():
                    sink.write(
                        split,
                        [_text(source.name(index)) for index in indices.tolist()],
                        batch.labels[readable],
                        batch.x[readable],
                    )
                count.add(len(readable))
        for sink in sinks:
            sink.close()
    processes.meet()
    count.end()
    return {
        "num_examples": total,
        "dim": dim,
        "unreadable": count.done - total,
        "images_per_second": count.per_second,
        "files": [str(folder / name) for name in FILES],
    }


def _text(name: str) -> str:
    """A file name as valid Unicode, with replacement characters for other bytes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class Table:
    """A Parquet file with the columns split, name, label (int32) and features (F floats).

    Args:
      file: The open binary file to write to.
      labelled: Whether there is the column label.
    """

    def __init__(self, file: Any, *, labelled: bool):
        self._file = file
        self._labelled = labelled
        self._writer: pq.ParquetWriter | None = None

    def write(self, split: str, names: list[str], labels: np.ndarray, x: np.ndarray) -> None:
        """Writes n rows: names, labels (n,) and features (n, F) of a split."""
        columns = {"split": pa.array([split] * len(x)), "name": pa.array(names, pa.string())}
        if self._labelled:
            columns["label"] = pa.array(labels, pa.int32(), mask=labels < 0)
        columns["features"] = pa.FixedSizeListArray.from_arrays(x.ravel(), x.shape[1])
        table = pa.table(columns)
        self._writer = self._writer or pq.ParquetWriter(self._file, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        """Completes the table."""
        if self._writer:
            self._writer.close()


class Archive:
    """A .npz file with the arrays split, name, label (int32) and features (n, F) float32.

    Args:
      file: The open binary file to write to.
      labelled: Whether there is the array label.
    """

    def __init__(self, file: Any, *, labelled: bool):
        self._file = file
        self._labelled = labelled
        # An archive has the number of features before them, so they are collected on disk first.
        self._features = tempfile.TemporaryFile()  # noqa: SIM115
        self._split: list[str] = []
        self._name: list[str] = []
        self._label: list[np.ndarray] = []
        self._dim = 0

    def write(self, split: str, names: list[str], labels: np.ndarray, x: np.ndarray) -> None:
        """Adds n rows: names, labels (n,) and features (n, F) of a split."""
        self._features.write(np.ascontiguousarray(x, np.float32).tobytes())
        self._split += [split] * len(x)
        self._name += names
        self._label.append(labels.astype(np.int32))
        self._dim = x.shape[1]

    def close(self) -> None:
        """Writes the archive."""
        arrays = {"split": np.array(self._split, str), "name": np.array(self._name, str)}
        if self._labelled:
            arrays["label"] = np.concatenate(self._label)
        with self._features, zipfile.ZipFile(self._file, "w") as archive:
            for key, array in arrays.items():
                with archive.open(f"{key}.npy", "w") as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
            with archive.open("features.npy", "w", force_zip64=True) as entry:
                header = {
                    "descr": "<f4",
                    "fortran_order": False,
                    "shape": (len(self._name), self._dim),
                }
                np.lib.format.write_array_header_1_0(entry, header)
                self._features.seek(0)
                while chunk := self._features.read(2**24):
                    entry.write(chunk)

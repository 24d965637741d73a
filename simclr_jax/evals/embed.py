"""Exports the features of every image as a NumPy archive and a Parquet table."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath, epy

from simclr_jax.config.rules import anything, one_of
from simclr_jax.data.readable import Readable
from simclr_jax.errors import UserError
from simclr_jax.evals import parquet, stored
from simclr_jax.evals.features import Extractor
from simclr_jax.evals.scores import subject
from simclr_jax.evals.task import Task
from simclr_jax.run.progress import Count

with epy.lazy_imports():
    import pyarrow as pa

# The rules of the config section "embed".
RULES = {
    "embed.split": one_of("train", "eval", "all"),
    "embed.dir": anything("a folder"),
}
CHUNK = 4096  # The number of texts that are written at a time.
FILES = ("features.npz", "features.parquet")  # The names of the files, in this order.


def run(task: Task) -> dict[str, Any]:
    """Writes the features of one split or of both; returns its part of result.json.

    Raises:
      UserError: The files cannot be written.
    """
    keys = task.config.embed
    if task.root is None and not keys.dir:
        raise UserError(
            "config.embed.dir=None: the run cannot be written to; name a folder for the files, or "
            "one for files and results with --to=FOLDER"
        )
    sources = task.open(keys.split)
    folder = epath.Path(keys.dir).expanduser() if keys.dir else task.folder
    assert folder is not None
    return {
        "split": keys.split,
        **write_features(task.extractor, sources, folder, dtype=task.config.features.dtype),
    }


def in_words(result: dict[str, Any]) -> str:
    """The number of exported images and what they are of, as text.

    >>> in_words({"num_examples": 8, "dataset": "folder", "unreadable": 2, "layer": "h"})
    '8 images of folder, 2 left out, layer h'
    >>> in_words({"num_examples": 8, "dataset": "digits", "unreadable": 0, "not_finite": 3})
    '8 images of digits, 3 of them with features that are not finite'
    """
    left_out = f", {result['unreadable']} left out" if result["unreadable"] else ""
    wrong = result.get("not_finite")
    warning = f", {wrong} of them with features that are not finite" if wrong else ""
    return f"{subject(result, left_out)}{warning}"


def write_features(
    extractor: Extractor,
    sources: Mapping[str, Readable],
    folder: epath.Path,
    *,
    dtype: str = "float32",
) -> dict[str, Any]:
    """Writes features.npz and features.parquet with one row per image, in the sources' order.

    A row has split, name (the path of the file, or the position in the dataset), label (where any
    split has labels) and features (F,). An image without a label has null in the table and
    -1 in the archive; an unreadable image has no row. Features are written as they are computed, so
    memory does not grow with their number.

    Args:
      extractor: The extractor of the features.
      sources: The images by the name of the split.
      folder: The folder of the files, which are replaced when all features are written.
      dtype: The dtype of the features in the files, one of `stored.DTYPES`; one that is too large
        for it is infinite there.

    Returns:
      num_examples, dim (F), unreadable (images left out), not_finite (images whose features are
      not all finite), images_per_second (without the first batch, which compiles) and files (their
      paths).
    """
    labelled = any(source.num_classes for source in sources.values())
    count = Count("embedded", sum(map(len, sources.values())), sys.stderr)
    total = dim = not_finite = 0
    with parquet.created(folder, *FILES, key="config.embed.dir") as made:
        archives = [Archive(file, labelled=labelled, dtype=dtype) for file in made[:1]]
        tables = [parquet.Table(file) for file in made[1:]]
        for computed in parquet.rows(extractor, sources, count):
            with np.errstate(over="ignore"):
                x = computed.x.astype(dtype, copy=False)
            rows = computed._replace(x=x)
            dim, total = x.shape[1], total + len(x)
            not_finite += int(np.sum(~np.isfinite(x).all(axis=1)))
            for archive in archives if len(x) else []:
                archive.write(rows)
            for table in tables if len(x) else []:  # Without rows columns have no types.
                table.write(columns(rows, labelled=labelled))
        sinks: list[Archive | parquet.Table] = [*archives, *tables]
        for sink in sinks:
            sink.close()
    count.end()
    return {
        "num_examples": total,
        "dim": dim,
        "unreadable": count.done - total,
        "not_finite": not_finite,
        "images_per_second": count.per_second,
        "files": [str(folder / name) for name in FILES],
    }


def columns(rows: parquet.Rows, *, labelled: bool) -> dict[str, pa.Array]:
    """The columns of the table: split, name, label (int32) and features (F floats)."""
    features = pa.FixedSizeListArray.from_arrays(rows.x.ravel(), rows.x.shape[1])
    return {**parquet.columns(rows, labelled=labelled), "features": features}


class Archive:
    """A .npz file with the arrays split, name, label (int32) and features (n, F).

    An array is preceded by its shape and, for texts, by the length of the longest. Features and
    names are therefore collected in files first, so memory does not grow with them.

    Args:
      file: The open binary file to write to.
      labelled: Whether there is the array label.
      dtype: The dtype of the features, one of `stored.DTYPES`.
    """

    def __init__(self, file: Any, *, labelled: bool, dtype: str = "float32"):
        self._file = file
        self._form = stored.DTYPES[dtype]
        self._labelled = labelled
        beside = os.path.dirname(file.name)  # A folder for temporary files may be small.
        self._features = tempfile.TemporaryFile(dir=beside)  # noqa: SIM115
        self._texts = {key: _Texts(beside) for key in ("split", "name")}
        self._label: list[np.ndarray] = []
        self._count = self._dim = 0

    def write(self, rows: parquet.Rows) -> None:
        """Adds rows, at least one."""
        self._features.write(np.ascontiguousarray(rows.x, self._form).data)
        self._texts["split"].add([rows.split] * len(rows.x))
        self._texts["name"].add(rows.names)
        self._label.append(rows.labels.astype(np.int32))
        self._count, self._dim = self._count + len(rows.x), rows.x.shape[1]

    def close(self) -> None:
        """Writes the archive."""
        with self._features, zipfile.ZipFile(self._file, "w") as archive:

            def entry(name: str, compression: int = zipfile.ZIP_STORED) -> Any:
                about = zipfile.ZipInfo(f"{name}.npy")
                about.compress_type = compression
                return archive.open(about, "w", force_zip64=True)

            for name, texts in self._texts.items():
                # Each text takes as much room as the longest, most of it zeros.
                with entry(name, zipfile.ZIP_DEFLATED) as file, texts:
                    stored.header(file, (self._count,), f"<U{texts.longest}")
                    for chunk in texts.chunks():
                        file.write(chunk.tobytes())
            if self._labelled:
                with entry("label") as file:
                    stored.header(file, (self._count,), "<i4")
                    for labels in self._label:
                        file.write(labels.tobytes())
            with entry("features") as file:
                stored.header(file, (self._count, self._dim), self._form)
                self._features.seek(0)
                shutil.copyfileobj(self._features, file, 2**24)


class _Texts(contextlib.AbstractContextManager["_Texts"]):
    """Texts that are collected in a file, to be read as an array of the longest one's length.

    Args:
      folder: The folder of the file, which has no name there.
    """

    def __init__(self, folder: str):
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self.longest = 1

    def add(self, texts: list[str]) -> None:
        """Adds texts, which have no lone surrogates."""
        self.longest = max(self.longest, *map(len, texts))
        self._file.write(b"".join(json.dumps(text).encode() + b"\n" for text in texts))

    def chunks(self) -> Iterator[np.ndarray]:
        """Yields all texts, as arrays of the same dtype."""
        self._file.seek(0)
        while lines := list(itertools.islice(self._file, CHUNK)):
            yield np.array([json.loads(line) for line in lines], f"<U{self.longest}")

    def __exit__(self, *_: object) -> None:
        self._file.close()

"""Features of every image, for use elsewhere: a NumPy archive and a Parquet table."""

import sys
import tempfile
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from simclr_jax import processes
from simclr_jax.config import parts
from simclr_jax.config.rules import anything, one_of
from simclr_jax.data.source import Readable
from simclr_jax.errors import UserError
from simclr_jax.evals.features import Extractor
from simclr_jax.evals.task import Task
from simclr_jax.run.progress import Count
from simclr_jax.store import files

RULES = {
    "embed.split": one_of("train", "eval", "all"),
    "embed.dir": anything("a folder"),
}
FILES = ("features.npz", "features.parquet")


def run(task: Task) -> dict[str, Any]:
    """The features of one split or of both, written to files."""
    keys = task.config.embed
    if keys.split == "all":
        sources = parts.open_all(task.run_config)
    else:
        sources = {keys.split: task.train if keys.split == "train" else task.test}
    folder = epath.Path(keys.dir).expanduser() if keys.dir else task.folder
    return {"split": keys.split, **write_features(task.extractor, sources, folder)}


def in_words(result: dict[str, Any]) -> str:
    """The number of images, in a line for people."""
    left_out = f", {result['unreadable']} left out" if result["unreadable"] else ""
    return f"{result['num_examples']} images of {result['dataset']}{left_out}"


def write_features(
    extractor: Extractor, sources: Mapping[str, Readable], folder: epath.Path
) -> dict[str, Any]:
    """Writes features.npz and features.parquet, a row an image, in the sources' order.

    The rows have split, name (the file's path, or the record's place in its dataset), label
    (labelled data only) and features (F,) float32. An unreadable image has no row. Features are
    written as they are computed: memory does not grow with their number.

    Args:
      extractor: of the features.
      sources: by split.
      folder: where the files are written, each replaced when all is done.

    Returns:
      num_examples, dim (F), unreadable (images left out), images_per_second (without the
      first batch, which compiles) and files.
    """
    labelled = all(source.num_classes for source in sources.values())
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
                for sink in sinks:
                    sink.write(
                        split,
                        [_text(source.name(index)) for index in indices.tolist()],
                        batch.labels[readable],
                        batch.x[readable],
                    )
                count.add(len(readable))
        for sink in sinks:
            sink.close()
    count.end()
    return {
        "num_examples": total,
        "dim": dim,
        "unreadable": count.done - total,
        "images_per_second": count.per_second,
        "files": [str(folder / name) for name in FILES],
    }


def _text(name: str) -> str:
    """A file name as valid Unicode, whatever bytes it has."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class Table:
    """A Parquet file: columns split, name, label (int32), features (a list of F floats)."""

    def __init__(self, file: Any, *, labelled: bool):
        self._file = file
        self._labelled = labelled
        self._writer: pq.ParquetWriter | None = None

    def write(self, split: str, names: list[str], labels: np.ndarray, x: np.ndarray) -> None:
        columns = {"split": pa.array([split] * len(x)), "name": pa.array(names, pa.string())}
        if self._labelled:
            columns["label"] = pa.array(labels, pa.int32())
        columns["features"] = pa.FixedSizeListArray.from_arrays(x.ravel(), x.shape[1])
        table = pa.table(columns)
        self._writer = self._writer or pq.ParquetWriter(self._file, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        if self._writer:
            self._writer.close()


class Archive:
    """A .npz: arrays split, name, label (int32) and features (n, F), read by `numpy.load`."""

    def __init__(self, file: Any, *, labelled: bool):
        self._file = file
        self._labelled = labelled
        # In the archive their number goes before them, so they wait here.
        self._features = tempfile.TemporaryFile()  # noqa: SIM115
        self._split: list[str] = []
        self._name: list[str] = []
        self._label: list[np.ndarray] = []
        self._dim = 0

    def write(self, split: str, names: list[str], labels: np.ndarray, x: np.ndarray) -> None:
        self._features.write(np.ascontiguousarray(x, np.float32).tobytes())
        self._split += [split] * len(x)
        self._name += names
        self._label.append(labels.astype(np.int32))
        self._dim = x.shape[1]

    def close(self) -> None:
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

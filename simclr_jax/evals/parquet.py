"""Rows of images, batch by batch, and the Parquet files that they are written to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

import numpy as np
from etils import epath, epy

from simclr_jax import processes
from simclr_jax.data.readable import Readable
from simclr_jax.errors import UserError
from simclr_jax.evals.features import Extractor
from simclr_jax.run.progress import Count
from simclr_jax.store import files

with epy.lazy_imports():
    import pyarrow as pa
    import pyarrow.parquet as pq

GROUP_BYTES = 2**26  # The bytes of rows after which a group of them is written.


class Rows(NamedTuple):
    """The readable images of a batch.

    Attributes:
      split: The name of the split.
      names: The names of the images: the path of the file, or the position in the dataset.
      labels: The labels (n,) int32; -1: none.
      x: The features (n, F) float32.
    """

    split: str
    names: list[str]
    labels: np.ndarray
    x: np.ndarray


def rows(extractor: Extractor, sources: Mapping[str, Readable], count: Count) -> Iterator[Rows]:
    """Yields the rows of every readable image, in the sources' order.

    Args:
      extractor: The extractor of the features.
      sources: The images by the name of the split.
      count: The count of all images, unreadable ones included, which is brought up to date.
    """
    for split, source in sources.items():
        start = 0
        for batch, readable in extractor.batches(source):
            names = [
                files.as_text(source.name(int(row))) for row in start + np.flatnonzero(readable)
            ]
            start += len(readable)
            yield Rows(split, names, batch.labels[readable], batch.x[readable])
            count.add(len(readable))


@contextlib.contextmanager
def created(folder: epath.Path, *names: str, key: str) -> Iterator[list[IO[bytes]]]:
    """A context with open files that take their places when it ends, and vanish when it raises.

    Args:
      folder: The folder of the files, which is made.
      names: The names of the files.
      key: The key or the flag of the folder, for the message.

    Yields:
      The files in process 0; none in the others.

    Raises:
      UserError: The files cannot be written.
    """
    with contextlib.ExitStack() as stack:
        opened: list[IO[bytes]] = []
        if processes.is_primary():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                paths = stack.enter_context(files.replacing(*(folder / name for name in names)))
                opened = [stack.enter_context(path.open("wb")) for path in paths]
            except OSError as error:
                raise UserError(
                    f"{key}={str(folder)!r}: cannot be written ({error.strerror})"
                ) from error
        yield opened
    processes.meet()


def columns(found: Rows, *, labelled: bool) -> dict[str, pa.Array]:
    """The columns split and name of rows and, with `labelled`, label, with null for none."""
    # The names of all images may be longer than a column of short strings can be when joined.
    made = {
        "split": pa.array([found.split] * len(found.names)),
        "name": pa.array(found.names, pa.large_string()),
    }
    if labelled:
        made["label"] = pa.array(found.labels, pa.int32(), mask=found.labels < 0)
    return made


class Table:
    """A Parquet file with a row an image.

    Rows are written in groups of about `GROUP_BYTES`: the end of the file describes each group, and
    readers refuse one that is too long.

    Args:
      file: The open binary file to write to.
    """

    def __init__(self, file: Any):
        self._file = file
        self._writer: pq.ParquetWriter | None = None
        self._group: list[pa.Table] = []

    def write(self, columns: dict[str, pa.Array]) -> None:
        """Writes rows, as columns by name, the same ones each time."""
        self._group.append(pa.table(columns))
        if sum(table.nbytes for table in self._group) >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._group:
            table = pa.concat_tables(self._group)
            self._writer = self._writer or pq.ParquetWriter(self._file, table.schema)
            self._writer.write_table(table)
            self._group = []

    def close(self) -> None:
        """Completes the table."""
        self._flush()
        if self._writer:
            self._writer.close()

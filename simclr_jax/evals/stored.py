"""Features in files: written as they come, mapped into memory, the latest few kept.

A file has two arrays in NumPy's format one after another, the features and the labels, and then the
SHA-256 of both, by which damage is found. Features may be stored as float16: half the size, with 11
bits of each number.
"""

import contextlib
import hashlib
import os
import shutil
import struct
import sys
import time
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np
from etils import epath

from simclr_jax.errors import UserError, chosen
from simclr_jax.store.files import is_remote, temporary_folder

# The features (n, F), float32 or `Half`, and the labels, (n,) int32 or (n, C) int8.
Arrays = tuple[np.ndarray, np.ndarray]

# The dtypes of stored features by name, as NumPy writes them.
DTYPES = {"float32": "<f4", "float16": "<f2"}

ROWS = 2**14  # The number of rows that are read at a time to check a file.
LEFT_SECONDS = 86400.0  # The age at which an unfinished file counts as left behind.


class Half(np.memmap):
    """Features stored as float16, of which every part that is read is float32.

    So a sum over them is as exact as over others, and only what is read takes memory.
    """

    def __getitem__(self, rows: Any) -> Any:
        return np.asarray(super().__getitem__(rows)).astype(np.float32)


def write(path: epath.Path, batches: Iterable[Arrays], *, dtype: str = "float32") -> None:
    """Writes features, batch by batch, to a local file.

    Args:
      path: The path of the file, which is complete when the function returns.
      batches: At least one batch of features and labels.
      dtype: The dtype of the stored features, one of `DTYPES`.

    Raises:
      UserError: A feature is too large for the dtype.
    """
    form = chosen(DTYPES, "dtype", dtype)
    count = dim = 0
    labels: list[np.ndarray] = []
    sha = hashlib.sha256()
    with path.open("wb") as file:
        for x, y in batches:
            if not labels:
                dim = x.shape[1]
                header(file, (0, dim), form)
            with np.errstate(over="ignore"):
                rows = np.ascontiguousarray(x, form)
            if dtype != "float32" and not np.isfinite(rows).all():
                raise UserError(
                    f"config.features.dtype={dtype!r}: some features are too large for it (up to "
                    f"{np.abs(x).max():.3g}); use 'float32'"
                )
            file.write(rows.data)
            sha.update(rows.data)
            labels.append(y.astype("<i4" if y.ndim == 1 else "i1"))
            count += len(rows)
        joined = np.concatenate(labels)
        np.lib.format.write_array(file, joined, version=(1, 0))
        file.write(_finished(sha, (count, dim), joined))
        file.seek(0)
        header(file, (count, dim), form)  # NumPy leaves room in it for any number of rows.
        file.flush()
        os.fsync(file.fileno())


def header(file: Any, shape: tuple[int, ...], dtype: str) -> None:
    """Writes to an open file what precedes the data of an array in NumPy's format."""
    described = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)


def mapped(path: epath.Path) -> Arrays:
    """The arrays of a local file, the features mapped: they stay when the file is moved or deleted.

    Raises:
      ValueError, OSError: The file is damaged or missing.
    """
    x, labels, _ = _parts(path)
    return _as_float32(x), labels


def archived(path: epath.Path) -> np.ndarray:
    """The features (n, F) of a local .npz file of the protocol embed, mapped.

    Raises:
      ValueError, OSError, KeyError: The file is damaged or missing, or has no features.
    """
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("features.npy")
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError("its features are compressed")
    with path.open("rb") as file:
        file.seek(entry.header_offset + 26)  # The lengths of the name and of what follows it.
        file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return _as_float32(np.memmap(path, dtype, "r", file.tell(), shape))


def _as_float32(x: np.ndarray) -> np.ndarray:
    """Mapped features, which are float32 or become so as they are read."""
    return x.view(Half) if x.dtype == np.float16 else x


def _parts(path: epath.Path) -> tuple[np.ndarray, np.ndarray, bytes]:
    """The features, the labels and the digest of a file."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        start = file.tell()
        x = np.memmap(path, dtype, "r", start, shape)
        file.seek(start + x.nbytes)
        return x, np.lib.format.read_array(file), file.read()


def read(path: epath.Path) -> Arrays | None:
    """The arrays of a file, on a disk or in a bucket; None where there is none or it is damaged."""
    with contextlib.ExitStack() as stack:
        try:
            if is_remote(path):
                folder = stack.enter_context(temporary_folder())
                with path.open("rb") as there, (folder / path.name).open("wb") as here:
                    shutil.copyfileobj(there, here, 2**24)
                path = folder / path.name
            x, labels, digest = _parts(path)
            sha = hashlib.sha256()
            for start in range(0, len(x), ROWS):
                sha.update(x[start : start + ROWS].data)
            if _finished(sha, x.shape, labels) != digest:
                return None
        except Exception:  # NumPy raises many kinds for a damaged file.
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # The time of the last use, by which the latest are kept.
        return _as_float32(x), labels


def _finished(sha: Any, shape: tuple[int, ...], labels: np.ndarray) -> bytes:
    """The digest of features that have been added to it, of their shape and their labels."""
    sha.update(labels.data)
    sha.update(repr(tuple(shape)).encode())
    return sha.digest()


def prune(folder: epath.Path, keep: int) -> None:
    """Deletes all files of features but the latest used ones, and says which.

    Args:
      folder: The folder of the files.
      keep: The number of files to keep.
    """
    now, aged = time.time(), []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # Another evaluation may have deleted it.
            aged.append((now - path.stat().mtime, path.stat().length, path))
    finished = sorted(each for each in aged if each[2].suffix in (".npy", ".npz"))
    left = [each for each in aged if each[2].suffix == ".tmp" and each[0] > LEFT_SECONDS]
    gone = [*finished[keep:], *left]
    for _, _, path in gone:
        path.unlink(missing_ok=True)
    if gone:
        size = sum(length for _, length, _ in gone) / 2**20
        print(
            f"{folder}: {len(gone)} files deleted, {size:.1f} MiB: config.features.keep={keep} "
            "keeps the latest used",
            file=sys.stderr,
            flush=True,
        )

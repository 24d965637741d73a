"""Files of features: what is read is what was written, and only the latest stay."""

import os

import numpy as np
import pytest
from etils import epath

from simclr_jax.evals import stored


@pytest.fixture
def written(tmp_path, rng, monkeypatch):
    """(path, features, labels) of a file, written and read in three batches."""
    monkeypatch.setattr(stored, "ROWS", 4)
    x, labels = rng.normal(size=(9, 5)).astype(np.float32), np.arange(9)
    path = epath.Path(tmp_path / "a.npy")
    stored.write(path, ((x[rows], labels[rows]) for rows in np.split(np.arange(9), [4, 8])))
    return path, x, labels


def test_what_is_read_is_what_was_written_and_stays_in_the_file(written):
    path, x, labels = written
    found = stored.read(path)
    np.testing.assert_array_equal(found[0], x)
    np.testing.assert_array_equal(found[1], labels)
    assert isinstance(found[0], np.memmap)
    np.testing.assert_array_equal(np.load(path), x)
    path.unlink()
    np.testing.assert_array_equal(found[0], x)


def test_a_flipped_bit_or_a_missing_end_is_found(written):
    path, x, labels = written
    whole = path.read_bytes()
    for position in range(0, len(whole), 5):
        path.write_bytes(bytes([*whole[:position], whole[position] ^ 4, *whole[position + 1 :]]))
        found = stored.read(path)  # A space in a header may become another one.
        assert found is None or (np.array_equal(found[0], x) and np.array_equal(found[1], labels))
    for length in (0, 5, 128, len(whole) - 40, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert stored.read(path) is None


def test_the_latest_used_files_stay_and_what_is_deleted_is_said(written, capsys):
    path, *_ = written
    folder = path.parent
    for age, name in enumerate(("new.npy", "older.npy", "oldest.npz", ".left.npy.7.tmp")):
        path.copy(folder / name)
        os.utime(folder / name, times=(10**9 - age, 10**9 - age))
    os.utime(path, times=(0, 0))
    assert stored.read(path) is not None  # The use counts.
    path.copy(folder / ".growing.npy.8.tmp")
    stored.prune(folder, 2)
    assert sorted(each.name for each in folder.iterdir()) == [
        ".growing.npy.8.tmp", "a.npy", "new.npy",
    ]  # fmt: skip
    said = capsys.readouterr().err
    assert "3 files deleted, 0.0 MiB: config.features.keep=2 keeps the latest used" in said
    stored.prune(folder, 2)
    assert capsys.readouterr().err == ""

"""Files of features: what is read is what was written, and only the latest stay."""

import os

import numpy as np
import pytest
from etils import epath

from simclr_jax.errors import UserError
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


def test_float16_halves_the_file_and_every_part_that_is_read_is_float32(tmp_path, rng):
    x, labels = rng.normal(size=(9, 500)).astype(np.float32), np.arange(9)
    paths = {dtype: epath.Path(tmp_path / dtype) for dtype in stored.DTYPES}
    for dtype, path in paths.items():
        stored.write(path, [(x[:5], labels[:5]), (x[5:], labels[5:])], dtype=dtype)
    sizes = {dtype: path.stat().length for dtype, path in paths.items()}
    assert sizes["float16"] < 0.55 * sizes["float32"]
    for found in (stored.read(paths["float16"])[0], stored.mapped(paths["float16"])[0]):
        assert (found.shape, found.nbytes) == (x.shape, x.nbytes // 2)
        for rows in (slice(2, 7), np.array([8, 0]), 3):
            assert found[rows].dtype == np.float32
            np.testing.assert_array_equal(found[rows], x[rows].astype(np.float16))
    damaged = bytearray(paths["float16"].read_bytes())
    damaged[300] ^= 1
    paths["float16"].write_bytes(damaged)
    assert stored.read(paths["float16"]) is None


def test_a_feature_that_is_too_large_for_float16_is_said(tmp_path):
    x = np.float32([[1, 7e4]])
    with pytest.raises(
        UserError, match=r"dtype='float16': some .* \(up to 7e\+04\); use 'float32'"
    ):
        stored.write(epath.Path(tmp_path / "a"), [(x, np.zeros(1))], dtype="float16")


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


def test_several_labels_of_an_image_stay_with_its_features(tmp_path, rng):
    path = epath.Path(tmp_path / "a.npy")
    x, labels = rng.normal(size=(9, 5)).astype(np.float32), rng.integers(-1, 2, (9, 3), np.int8)
    stored.write(path, [(x[:4], labels[:4]), (x[4:], labels[4:])])
    for found in (stored.read(path), stored.mapped(path)):
        np.testing.assert_array_equal(found[0], x)
        np.testing.assert_array_equal(found[1], labels)
        assert found[1].dtype == np.int8

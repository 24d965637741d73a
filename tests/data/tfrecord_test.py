"""TFRecord files read by index: where their records begin, and how damage is noticed."""

import shutil

import numpy as np
import pytest

from simclr_jax.data import tfrecord
from simclr_jax.errors import FileError
from support.sources import levels, split


def test_the_offset_index_is_built_once(tfrecords, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = levels(split("tiny", tfrecords, cache_bytes=0), np.arange(20))
    monkeypatch.setattr(tfrecord, "_spans", None)  # a second scan would fail
    assert levels(split("tiny", tfrecords, cache_bytes=0), np.arange(20)) == first


@pytest.mark.parametrize("harm", ["emptied", "cut short", "a flipped bit"])
def test_a_damaged_offset_index_is_built_again(tfrecords, monkeypatch, tmp_path, harm):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = levels(split("tiny", tfrecords, cache_bytes=0), np.arange(20))
    kept = list(tmp_path.rglob("*.npy"))
    assert kept
    for path in kept:
        whole = bytearray(path.read_bytes())
        whole[-12] ^= harm == "a flipped bit"
        path.write_bytes({"emptied": b"", "cut short": whole[:-8]}.get(harm, whole))
    assert levels(split("tiny", tfrecords, cache_bytes=0), np.arange(20)) == first


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_a_truncated_tfrecord_is_named(tfrecords, monkeypatch, tmp_path, cache_bytes):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(tfrecords, tmp_path / "data")
    (file,) = (tmp_path / "data").rglob("*train.tfrecord*")
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(FileError, match=r"train\.tfrecord.*damaged"):
        split("tiny", tmp_path / "data", cache_bytes=cache_bytes)

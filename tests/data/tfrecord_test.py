"""TFRecord files read by index: where their records begin, and how damage is noticed."""

import shutil
import struct

import numpy as np
import pytest

from simclr_jax.data import tfrecord
from simclr_jax.data.readable import Readable
from simclr_jax.errors import FileError
from support.sources import levels, split


@pytest.fixture
def copied(tfrecords, monkeypatch, tmp_path):
    """(a copy of the data directory, the training shard in it); the cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(tfrecords, tmp_path / "data")
    (shard,) = (tmp_path / "data").rglob("*train.tfrecord*")
    return tmp_path / "data", shard


def harm(shard, number, where):
    """Flips a bit of a record: of its length, of that one's checksum, or of its data."""
    data, start = bytearray(shard.read_bytes()), 0
    for _ in range(number):
        start += struct.unpack_from("<Q", data, start)[0] + 16
    data[start + {"length": 0, "checksum": 9, "data": 40, "first byte": 12}[where]] ^= 1
    shard.write_bytes(data)
    return start


def test_the_offset_index_is_built_once(tfrecords, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = levels(split("tiny", tfrecords, cache_bytes=0), np.arange(20))
    monkeypatch.setattr("simclr_jax.data.tfrecord_index.spans_of", None)  # a second scan would fail
    assert levels(split("tiny", tfrecords, cache_bytes=0), np.arange(20)) == first


def test_files_on_a_disk_are_read_without_tensorflow(tfrecords, monkeypatch, tmp_path):
    """It reads 512 kB for a record, and for a header of the index."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("tensorflow.io.gfile.GFile", None)
    assert len(levels(split("tiny", tfrecords, cache_bytes=0), np.arange(20))[0]) == 20


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


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
@pytest.mark.parametrize("where", ["data", "first byte"])
def test_a_record_with_a_flipped_bit_is_left_out_alone(copied, cache_bytes, where):
    folder, shard = copied
    whole = levels(split("tiny", folder, cache_bytes=0), np.arange(20))
    harm(shard, 5, where)
    source = Readable(split("tiny", folder, cache_bytes=cache_bytes), on_bad_image="replace")
    found = levels(source, np.arange(20))
    assert list(source.bad) == [5]
    assert "checksum does not match, at byte" in source.bad[5]
    for now, before in zip(found, whole, strict=True):
        assert now == before[:5] + before[6:7] + before[6:]


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_a_flipped_bit_of_a_length_is_named_and_one_of_its_checksum_is_harmless(
    copied, cache_bytes, monkeypatch, tmp_path
):
    folder, shard = copied
    whole = levels(split("tiny", folder, cache_bytes=0), np.arange(20))
    harm(shard, 3, "checksum")
    assert levels(split("tiny", folder, cache_bytes=cache_bytes), np.arange(20)) == whole
    start = harm(shard, 7, "length")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))  # With an index it is not read.
    with pytest.raises(FileError, match=rf"tfrecord.*record at byte {start} is damaged"):
        split("tiny", folder, cache_bytes=cache_bytes)


@pytest.mark.parametrize("cache", ["/dev/null/x", "/proc/x", None])
def test_an_index_that_cannot_be_kept_is_said_once(copied, monkeypatch, cache):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    lines = []
    monkeypatch.setattr(tfrecord._log, "warning", lambda text, *args: lines.append(text % args))
    monkeypatch.setattr("pathlib.Path.home", homeless)
    monkeypatch.delenv("XDG_CACHE_HOME")
    if cache:
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
    source = split("tiny", copied[0], cache_bytes=0, train_split="train+test")
    assert len(levels(source, np.arange(30))[0]) == 30
    (line,) = lines
    assert "index of 2 TFRecord files cannot be kept" in line


def test_a_shard_that_is_missing_is_named(copied):
    copied[1].unlink()
    with pytest.raises(FileError, match=r"train\.tfrecord.*: missing"):
        split("tiny", copied[0], cache_bytes=0)

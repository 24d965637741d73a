"""ArrayRecord files of which a part is damaged, or cannot be reached."""

import shutil

import numpy as np
import pytest

from simclr_jax.data.array_record import ArrayRecordReader
from simclr_jax.data.readable import Readable
from simclr_jax.errors import HostError
from simclr_jax.store import outage
from support.sources import levels, split


def test_a_record_with_a_flipped_bit_is_left_out_alone(array_records, tmp_path):
    shutil.copytree(array_records, tmp_path / "data")
    (shard,) = (tmp_path / "data").rglob("*train.array_record*")
    data, start = bytearray(shard.read_bytes()), 0
    for _ in range(6):
        start = data.index(b"\x89PNG", start + 1)
    data[start + 60] ^= 1
    shard.write_bytes(data)
    whole, found = (
        levels(Readable(split("tiny", folder), on_bad_image="replace"), np.arange(20))
        for folder in (array_records, tmp_path / "data")
    )
    assert sum(now != before for now, before in zip(found[0], whole[0], strict=True)) == 1


def test_records_that_cannot_be_reached_are_not_bad_ones(monkeypatch):
    class Lost:
        def __getitems__(self, indices):
            raise RuntimeError("pread() failed: Input/output error [EIO]")

    monkeypatch.setattr(outage.time, "sleep", lambda seconds: None)
    with pytest.raises(HostError, match=r"tiny/train: cannot be read \(pread.*EIO"):
        ArrayRecordReader(Lost(), "tiny/train").__getitems__([0, 1])

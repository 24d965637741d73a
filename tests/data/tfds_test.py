"""Datasets that TFDS has prepared, read by index in each of its two formats."""

import numpy as np
import pytest

from simclr_jax.errors import UserError
from support.sources import levels, split


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_tfds_is_read_by_index(prepared, cache_bytes, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    train = split("tiny", prepared, cache_bytes=cache_bytes)
    assert (len(train), train.num_classes) == (20, 3)
    values, labels = levels(train, np.arange(20))
    assert sorted(values) == list(range(20))
    assert labels == [value % 3 for value in values]
    again, _ = levels(train, [5, 3, 5])
    assert again == [values[5], values[3], values[5]]
    assert len(split("tiny", prepared, "eval", cache_bytes=cache_bytes)) == 10  # test


def test_tfds_slices(prepared):
    whole, _ = levels(split("tiny", prepared), np.arange(20))
    part = split("tiny", prepared, train_split="train[25%:75%]")
    assert levels(part, np.arange(10))[0] == whole[5:15]
    with pytest.raises(UserError, match=r"config\.data\.eval_split='val': tiny has"):
        split("tiny", prepared, "eval", eval_split="val")
    with pytest.raises(UserError, match=r"config\.data\.train_split='train\[:0\]': there are no"):
        split("tiny", prepared, train_split="train[:0]")


def test_a_version_that_is_not_prepared_is_named_with_those_that_are(prepared):
    with pytest.raises(UserError, match=r"'tiny:7\.7\.7': version 7\.7\.7 is not .*1\.0\.0"):
        split("tiny:7.7.7", prepared)

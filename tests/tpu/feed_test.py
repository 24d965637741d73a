"""What a slice's hosts read of their storage, counted from the order of a run."""

import pytest

from simclr_jax.config import overrides
from simclr_jax.data.order import Order
from simclr_jax.store import ranges
from simclr_jax.tpu import feed

PLANNED = {"step_seconds": 0.1, "hosts": 8}


def needed(storage, **order):
    return feed.needed(
        Order(examples=100_000, batch_size=4096, seed=0, **order),
        rows=512, bytes_each=100_000, steps_per_second=10.0, storage=storage,
    )  # fmt: skip


def test_a_shuffle_reads_nearly_every_image_alone():
    found = needed(ranges.DISK)
    assert 0.97 * 5120 < found.reads <= 5120
    assert found.bandwidth == pytest.approx(5120 * 100_000)


def test_blocks_that_fit_a_hosts_part_of_a_batch_are_read_at_once():
    """A window of 16 blocks of 16 is 256 images, two of which make the 512 of a host."""
    found = needed(ranges.BUCKET, block=16, window=16)
    assert found.reads <= 2 * 16 * 10
    assert found.bandwidth == pytest.approx(5120 * 100_000)


def test_what_lies_between_images_that_are_read_at_once_counts():
    """A host has about half of the images of a window of 1,024."""
    found = needed(ranges.BUCKET, block=64, window=16)
    assert found.reads < 1000
    assert 1.2 * 5120 * 100_000 < found.bandwidth < 2 * 5120 * 100_000


def test_the_lines_name_what_is_assumed_and_a_block_that_is_enough(monkeypatch):
    monkeypatch.setitem(feed.ASSUMED, "bucket", feed.Assumed(ranges.BUCKET, 1_000, 1e9))
    config = overrides.load(["--config=imagenet", "--config.data.num_examples=100000"])
    disk, bucket = feed.in_words(config, PLANNED).splitlines()
    assert disk.startswith("storage       disk: 5,")
    assert disk.endswith("10,000 and 1.0 assumed: enough")
    assert "1,000 and 1.0 assumed: 5.0x too slow; data.shuffle_block=16 needs 3" in bucket
    assert bucket.endswith(": enough (images of 110 kB assumed)")


def test_a_block_is_of_no_use_for_a_folder_of_images():
    config = overrides.load(
        ["--config=imagenet", "--config.data.num_examples=100000", "--config.data.name=folder"]
    )
    assert "shuffle_block" not in feed.in_words(config, PLANNED)

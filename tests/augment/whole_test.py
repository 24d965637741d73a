"""Whole batches of small images on the host: what can be made so, and the dtypes."""

from dataclasses import replace

import numpy as np
import pytest

from simclr_jax.augment.whole import Whole
from support.views import ALL, PIPELINE


def whole(dtype="uint8", **changes):
    return Whole(replace(ALL, **changes), seed=3, dtype=dtype)


@pytest.mark.parametrize(
    ("ops", "can"),
    [
        ((PIPELINE, PIPELINE), True),
        ((("shared_crop",), ("jitter", "flip")), True),
        ((("crop", "cutout", "jitter"),), False),
        ((("crop", "crop"),), False),
    ],
)
def test_batches_are_made_as_a_whole_where_a_crop_is_all_that_comes_before(ops, can):
    assert whole(ops=ops).can_make == can


def test_batches_are_made_one_by_one_where_jax_has_no_cpu(monkeypatch):
    def absent(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr("jax.local_devices", absent)
    assert (whole().can_make, whole().can_end) == (False, False)


def test_an_image_s_views_are_the_same_in_any_batch(rng):
    pixels = rng.integers(0, 256, (6, 20, 24, 3), np.uint8)
    index, epoch = rng.integers(0, 99, (2, 6))
    together = whole().make(pixels, index, epoch)
    assert (together.dtype, together.shape) == (np.uint8, (6, *whole().shape))
    part = whole().make(pixels[2:4], index[2:4], epoch[2:4])
    np.testing.assert_array_equal(part, together[2:4])
    exact = whole("float32").make(pixels, index, epoch)
    assert (exact.dtype, exact.min() >= 0, exact.max() <= 1) == (np.float32, True, True)
    np.testing.assert_array_equal(np.round(exact * 255), together)


def test_views_are_ended_as_those_that_are_made_whole(rng):
    """In whatever groups; what a crop of the full image leaves is ended here."""
    cropped = {"crop_area": (1.0, 1.0)}
    pixels = rng.integers(0, 256, (11, 9, 9, 3), np.uint8)
    index, epoch = rng.integers(0, 99, (2, 11))
    left = {"colour_on": "device", "blur_on": "device"}
    early = whole("float32", **cropped, **left).make(pixels, index, epoch)
    made = whole(**cropped).make(pixels, index, epoch)
    ended = whole(**cropped).end(early, whole(**cropped).numbers(index, epoch))
    assert ended.shape == made.shape
    assert np.abs(ended.astype(int) - made).max() <= 1
    part = whole(**cropped).end(early[3:6], whole(**cropped).numbers(index[3:6], epoch[3:6]))
    np.testing.assert_array_equal(part, ended[3:6])


def test_views_that_the_device_ends_are_rounded_or_left_as_they_are(rng):
    """A bicubic resize of noise leaves the range of its values."""
    pixels, zeros = rng.choice([0, 255], (4, 9, 9, 3)).astype(np.uint8), np.zeros(4, int)
    device = {"colour_on": "device", "blur_on": "device"}
    exact = whole("float32", **device).make(pixels, zeros, zeros)
    assert exact.max() > 1.01
    rounded = whole("uint8", **device).make(pixels, zeros, zeros)
    np.testing.assert_array_equal(rounded, np.round(exact.clip(0, 1) * 255))

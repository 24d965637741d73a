"""The law of crops: TensorFlow's numbers, and the same law by hand."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from simclr_jax.augment import crops
from simclr_jax.augment.keys import fold
from support.views import some_keys


@pytest.mark.parametrize("area", [(0.08, 1.0), (0.36, 1.0), (0.08, 0.3), (0.02, 0.05)])
def test_crops_are_tensorflows(rng, area):
    """The last area is below a tenth, which no crop may have: then the full image is taken."""
    count = 150
    sides = rng.integers(1, 700, (2, count))
    sides[:, :30], sides[:, 30:60] = 32, rng.integers(1, 9, (2, 30))
    seeds = rng.integers(0, 2**62, (count, 2))

    @tf.function
    def tensorflows(height, width, seed):
        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            tf.stack([height, width, 3]), tf.constant([[[0.0, 0.0, 1.0, 1.0]]]), seed,
            min_object_covered=0.1, aspect_ratio_range=(3 / 4, 4 / 3), area_range=area,
            max_attempts=100, use_image_if_no_bounding_boxes=True,
        )  # fmt: skip
        return tf.concat([begin[:2], extent[:2]], axis=0)

    dataset = tf.data.Dataset.from_tensor_slices((*sides, seeds)).map(tensorflows)
    expected = np.stack(list(dataset.as_numpy_iterator()))
    np.testing.assert_array_equal(crops.boxes(*sides, seeds, area=area), expected)


def crop_by_hand(rng, height, width, area=(0.08, 1.0)):
    """The crop's law as TensorFlow documents it, in plain Python."""
    for _ in range(100):
        aspect = rng.uniform(3 / 4, 4 / 3)
        smallest, largest = area[0] * height * width, area[1] * height * width
        low = round(np.sqrt(smallest / aspect))
        high = round(np.sqrt(largest / aspect))
        if round(high * aspect) > width:
            high = int((width + 0.5 - 1e-7) / aspect)
        high, low = min(high, height), min(low, high)
        crop_height = low + (rng.integers(0, high - low + 1) if low < high else 0)
        crop_width = round(crop_height * aspect)
        if not smallest <= crop_height * crop_width <= largest or crop_width > width:
            continue
        if crop_height * crop_width < 0.1 * height * width:
            continue
        y = rng.integers(0, height - crop_height + 1)
        x = rng.integers(0, width - crop_width + 1)
        return y, x, crop_height, crop_width
    return 0, 0, height, width


@pytest.mark.parametrize("shape", [(32, 32), (150, 200), (500, 333)])
def test_crops_follow_the_law(rng, shape):
    height, width = (np.full(3000, side) for side in shape)
    boxes = crops.boxes(height, width, fold(some_keys(3000, seed=5), 0), area=(0.08, 1.0))
    expected = np.array([crop_by_hand(rng, *shape) for _ in range(3000)])
    for name, of in {
        "area": lambda b: b[:, 2] * b[:, 3],
        "aspect": lambda b: b[:, 3] / b[:, 2],
        "y": lambda b: b[:, 0],
        "x": lambda b: b[:, 1],
    }.items():
        assert stats.ks_2samp(of(boxes), of(expected)).pvalue > 1e-3, name
    assert (boxes[:, 0] + boxes[:, 2] <= shape[0]).all()
    assert (boxes[:, 1] + boxes[:, 3] <= shape[1]).all()


def test_numbers_that_are_passed_over_are_drawn_again(monkeypatch):
    """About once in 2³² / n numbers below n; here for each of the first numbers."""
    seeds = some_keys(4)
    numbers = crops._Numbers(seeds)
    numbers._bits[:, 0] = 0  # Below the remainder of 2³² by 3, which is 1.
    rows = np.arange(4)
    found = numbers.below(rows, np.full(4, 3))
    np.testing.assert_array_equal(found, numbers._bits[:, 1] % 3)

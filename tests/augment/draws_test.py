"""The law of every random number: against NumPy, against SciPy, and against each other."""

from dataclasses import replace

import chex
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from simclr_jax.augment import draws, host, keys
from simclr_jax.errors import ArgumentError
from support.views import ALL, PIPELINE, mapped, some_keys


@pytest.mark.parametrize(
    "wrong", [{"ops": (("crop", "warp"),)}, {"brightness": "v3"}, {"blur_on": "gpu"}]
)
def test_settings_of_an_unknown_name_are_refused(wrong):
    with pytest.raises(ArgumentError, match="must be one of"):
        replace(ALL, **wrong)


def test_a_shared_crop_is_the_first_operation():
    with pytest.raises(ArgumentError, match="'shared_crop' must be the first operation"):
        replace(ALL, ops=(PIPELINE, ("flip", "shared_crop")))


def test_a_shared_crop_is_that_of_all_views_and_no_view_s_own_crop():
    views = replace(ALL, ops=(("shared_crop",), ("shared_crop", "crop")))
    shared, own = [], []
    for index in range(30):
        keys_of_views = [keys.image_key(3, 1, index, view) for view in range(2)]
        one, other = (
            draws.draw(key, 100, 80, views, view) for view, key in enumerate(keys_of_views)
        )
        assert one["shared_crop"].numpy().tolist() == other["shared_crop"].numpy().tolist()
        shared.append(one["shared_crop"].numpy())
        own.append(draws.draw(keys_of_views[0], 100, 80, ALL, 0)["crop"].numpy())
        assert other["crop"].numpy()[2:].max() <= ALL.size  # It is a crop of the view.
    assert len(np.unique(shared, axis=0)) > 25
    assert not (np.array(shared) == np.array(own)).all(axis=1).any()


def test_draws_of_operations_and_views_are_uncorrelated():
    """Pairwise |r| < 0.05 over 4000 examples; 1/sqrt(4000) is 0.016."""

    def numbers(i):
        values = []
        for view in range(2):
            key = keys.image_key(0, 0, i, view)
            for draw in range(1, 5):  # draw 0 is the crop's own
                values.append(keys.uniform(keys.fold(key, draw), (2,), 0.0, 1.0))
            box = draws.crop_box(100, 100, keys.fold(key, 0), area=(0.08, 1.0))
            values.append(tf.cast(box, tf.float32)[::2])  # y and height
        return tf.concat(values, axis=0)

    table = mapped(numbers, 4000)
    chex.assert_shape(table, (4000, 20))
    correlation = np.corrcoef(table.T)
    for box in (8, 18):  # a crop's height bounds its y
        correlation[box, box + 1] = correlation[box + 1, box] = 0
    assert np.abs(correlation - np.eye(20)).max() < 0.05


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
    boxes = mapped(
        lambda i: draws.crop_box(*shape, keys.fold(keys.image_key(5, 0, i, 0), 0),
                                   area=(0.08, 1.0)), 3000
    )  # fmt: skip
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


@pytest.mark.parametrize(
    ("version", "low", "width"),
    [("v2", 0.3, 0.4), ("v1", 0.1, 0.8)],  # 0.5·U(0.6, 1.4) and 0.5 + U(-0.4, 0.4)
)
def test_jitter_changes_brightness_within_its_range(version, low, width):
    grey = np.full((4, 4, 3), 0.5, np.float32)  # contrast, saturation and hue leave it alone
    views = replace(ALL, strength=0.5, brightness=version)

    def level(i):
        key = keys.image_key(0, 0, i, 0)
        seeds = keys.fold(key, 2), keys.fold(key, 3)
        draw = draws.jitter(tf.constant(True), *seeds, strength=0.5, brightness=version)
        return host.color_jitter(grey, draw, views)[0, 0, 0]

    assert stats.kstest(mapped(level, 1000), stats.uniform(low, width).cdf).pvalue > 1e-3


def test_probabilities_of_flip_jitter_grey_and_blur():
    def gates(i):
        draw = draws.draw(keys.image_key(0, 0, i, 0), 16, 16, ALL, 0)
        flags = draw["flip"], draw["jitter"].applied, draw["grey"]
        return tf.stack([*(tf.cast(flag, tf.float32) for flag in flags), draw["blur"]])

    flip, jitter, grey, sigma = mapped(gates, 2000).T
    assert abs(flip.mean() - 0.5) < 0.05
    assert abs(jitter.mean() - 0.8) < 0.04
    assert abs(grey.mean() - 0.2) < 0.04
    assert abs((sigma > 0).mean() - 0.5) < 0.05
    assert stats.kstest(sigma[sigma > 0], stats.uniform(0.1, 1.9).cdf).pvalue > 1e-3


def test_a_draw_has_the_operations_of_its_view_in_their_order():
    (key,) = some_keys(1)
    views = replace(ALL, ops=(PIPELINE, ("blur", "flip", "sobel", "jitter")))
    assert list(draws.draw(key, 16, 16, views, 0)) == [*PIPELINE]
    assert list(draws.draw(key, 16, 16, views, 1)) == ["blur", "flip", "sobel", "jitter"]
    without = replace(views, strength=0.0)
    assert list(draws.draw(key, 16, 16, without, 0)) == ["crop", "flip", "blur"]
    assert list(draws.draw(key, 16, 16, without, 1)) == ["blur", "flip", "sobel"]


def test_another_order_and_other_operations_change_no_draw():
    (key,) = some_keys(1)
    own = tuple(name for name in draws.OPS if name != "shared_crop")
    every = replace(ALL, ops=(own, own[::-1][:-1]))
    chex.assert_trees_all_equal(
        {name: draws.draw(key, 16, 16, every, 0)[name] for name in every.ops[1]},
        draws.draw(key, 16, 16, every, 1),
    )
    default = draws.draw(key, 16, 16, ALL, 0)
    chex.assert_trees_all_equal(
        {name: draws.draw(key, 16, 16, every, 0)[name] for name in PIPELINE}, default
    )


def test_the_device_applies_a_blur_that_is_the_last_operation_alone():
    def left(*ops, strength=1.0, blur_on="device"):
        return replace(ALL, ops=ops, strength=strength, blur_on=blur_on).leave_blur

    assert left(PIPELINE, PIPELINE)
    assert left(("crop",), PIPELINE)
    assert not left(("crop",), PIPELINE, blur_on="host")
    assert not left(("crop", "blur", "jitter"))
    assert left(("crop", "blur", "jitter"), strength=0.0)  # For the jitter is off.


@pytest.mark.parametrize(("size", "taps"), [(32, 3), (64, 7), (96, 9), (224, 23), (8, 1)])
def test_blur_taps(size, taps):
    assert draws.blur_taps(size) == taps

"""The law of every random number: against SciPy, and against each other."""

from dataclasses import replace

import chex
import jax
import numpy as np
import pytest
from scipy import stats

from simclr_jax.augment import all_views, crops, draws, keys
from simclr_jax.errors import ArgumentError
from support.views import ALL, PIPELINE, some_keys

# Those that all can be in one view.
EVERY = tuple(name for name in draws.OPS if name != "shared_crop")


@pytest.mark.parametrize(
    "wrong",
    [{"ops": (("crop", "warp"),)}, {"brightness": "v3"}, {"blur_on": "gpu"}, {"colour_on": "tpu"}],
)
def test_settings_of_an_unknown_name_are_refused(wrong):
    with pytest.raises(ArgumentError, match="must be one of"):
        replace(ALL, **wrong)


def test_a_shared_crop_is_the_first_operation():
    with pytest.raises(ArgumentError, match="'shared_crop' must be the first operation"):
        replace(ALL, ops=(PIPELINE, ("flip", "shared_crop")))


def drawn(count, views=ALL, view=0, size=16, **kwargs):
    """The draws of a view of many images."""
    side = np.full(count, size)
    return draws.draw(some_keys(count, view, **kwargs), side, side, views, view)


def test_a_shared_crop_is_that_of_all_views_and_no_view_s_own_crop():
    views = replace(ALL, ops=(("shared_crop",), ("shared_crop", "crop")))
    one, other = (drawn(30, views, view, size=90) for view in range(2))
    np.testing.assert_array_equal(one["shared_crop"], other["shared_crop"])
    assert other["crop"][:, 2:].max() <= ALL.size  # It is a crop of the view.
    own = drawn(30, size=90)["crop"]
    assert len(np.unique(one["shared_crop"], axis=0)) > 25
    assert not (one["shared_crop"] == own).all(axis=1).any()


def test_draws_of_operations_and_views_are_uncorrelated():
    """Pairwise |r| < 0.05 over 4000 examples; 1/sqrt(4000) is 0.016."""
    columns = []
    for view in range(2):
        of_view = some_keys(4000, view)
        for number in range(1, 5):  # Number 0 is the crop's own.
            columns += [*keys.uniform(keys.fold(of_view, number), 2).T]
        side = np.full(4000, 100)
        boxes = crops.boxes(side, side, keys.fold(of_view, 0), area=(0.08, 1.0))
        columns += [boxes[:, 0], boxes[:, 2]]  # y and height
    correlation = np.corrcoef(columns)
    assert correlation.shape == (20, 20)
    for box in (8, 18):  # a crop's height bounds its y
        correlation[box, box + 1] = correlation[box + 1, box] = 0
    assert np.abs(correlation - np.eye(20)).max() < 0.05


@pytest.mark.parametrize(
    ("version", "low", "width"),
    [("v2", 0.6, 0.8), ("v1", -0.4, 0.8)],  # U(0.6, 1.4) and U(-0.4, 0.4)
)
def test_brightness_is_uniform_in_its_range(version, low, width):
    found = drawn(1000, replace(ALL, strength=0.5, brightness=version))["jitter"].brightness
    assert stats.kstest(found, stats.uniform(low, width).cdf).pvalue > 1e-3


def test_a_strength_above_one_and_a_quarter_makes_no_factor_negative():
    jitter = drawn(1000, replace(ALL, strength=2.0))["jitter"]
    for factor in (jitter.brightness, jitter.contrast, jitter.saturation):
        assert stats.kstest(factor, stats.uniform(0, 2.6).cdf).pvalue > 1e-3
    assert stats.kstest(jitter.hue, stats.uniform(-0.4, 0.8).cdf).pvalue > 1e-3


def test_the_24_orders_of_the_jitter_are_equally_frequent():
    orders = drawn(4800)["jitter"].order
    found, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(found) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


def test_probabilities_of_flip_jitter_grey_and_blur():
    draw = drawn(2000)
    assert abs(draw["flip"].mean() - 0.5) < 0.05
    assert abs(draw["jitter"].applied.mean() - 0.8) < 0.04
    assert abs(draw["grey"].mean() - 0.2) < 0.04
    sigma = draw["blur"]
    assert abs((sigma > 0).mean() - 0.5) < 0.05
    assert stats.kstest(sigma[sigma > 0], stats.uniform(0.1, 1.9).cdf).pvalue > 1e-3


def test_a_draw_has_the_operations_of_its_view_in_their_order():
    views = replace(ALL, ops=(PIPELINE, ("blur", "flip", "sobel", "jitter")))
    assert list(drawn(1, views)) == [*PIPELINE]
    assert list(drawn(1, views, 1)) == ["blur", "flip", "sobel", "jitter"]
    without = replace(views, strength=0.0)
    assert list(drawn(1, without)) == ["crop", "flip", "blur"]
    assert list(drawn(1, without, 1)) == ["blur", "flip", "sobel"]


def test_another_order_and_other_operations_change_no_draw():
    every = replace(ALL, ops=(EVERY, EVERY[::-1][:-1]))
    of_view, side = some_keys(3), np.full(3, 16)
    one, other = (draws.draw(of_view, side, side, every, view) for view in range(2))
    chex.assert_trees_all_equal({name: one[name] for name in every.ops[1]}, other)
    chex.assert_trees_all_equal({name: one[name] for name in PIPELINE}, drawn(3))


def test_numbers_of_many_images_are_those_of_each():
    """Whatever the other images are, and of whatever size."""
    height, width = np.array([40, 16, 7]), np.array([50, 16, 300])
    many = draws.draw(some_keys(3), height, width, ALL, 0)
    for row in range(3):
        at = slice(row, row + 1)
        alone = draws.draw(some_keys(3)[at], height[at], width[at], ALL, 0)
        chex.assert_trees_all_equal(alone, jax.tree.map(lambda x, at=at: x[at], many))


@pytest.mark.parametrize(
    ("ops", "names"),
    [
        ((EVERY, EVERY), (EVERY, EVERY)),
        ((("shared_crop", "autoaugment"),) * 2, (("shared_crop", "autoaugment"),) * 2),
        ((PIPELINE, PIPELINE), (("crop",), ("flip", "jitter"))),
        ((PIPELINE, EVERY), (("crop",), ("crop",))),
        ((("crop", "flip"), ("flip", "crop")), (("crop",), ("crop",))),  # The second is of a view.
        ((PIPELINE, PIPELINE), ((), ())),
    ],
)
def test_numbers_of_all_views_are_those_of_each(ops, names):
    """Whether the views are alike, and drawn together, or not."""
    views, height, width = replace(ALL, ops=ops), np.array([40, 16, 7]), np.array([50, 16, 300])
    of_views = [some_keys(3, view) for view in range(2)]
    together = all_views.draw(of_views, height, width, views, names)
    each = [draws.draw(of_views[v], height, width, views, v, names[v]) for v in range(2)]
    chex.assert_trees_all_equal(together, each)


@pytest.mark.parametrize(
    ("ops", "changes", "places"),
    [
        (PIPELINE, {}, (("crop",), PIPELINE[1:], ())),
        (PIPELINE, {"blur_on": "device"}, (("crop",), ("flip", "jitter", "grey"), ("blur",))),
        (PIPELINE, {"colour_on": "device"}, (("crop",), PIPELINE[1:], ())),
        (PIPELINE, {"colour_on": "device", "blur_on": "device"}, (("crop",), (), PIPELINE[1:])),
        (
            ("crop", "blur", "cutout", "jitter", "grey"),
            {"colour_on": "device", "blur_on": "device"},
            (("crop", "blur", "cutout"), (), ("jitter", "grey")),
        ),
        (
            ("blur", "grey", "flip"),
            {"colour_on": "device"},
            ((), ("blur",), ("grey", "flip")),
        ),
        (
            PIPELINE,
            {"colour_on": "device", "blur_on": "device", "strength": 0.0},
            (("crop",), (), ("flip", "blur")),
        ),
        ((), {}, ((), (), ())),
    ],
)
def test_the_last_operations_are_those_of_the_batch(ops, changes, places):
    assert replace(ALL, ops=(ops,), **changes).places(0) == places


@pytest.mark.parametrize(("size", "taps"), [(32, 3), (64, 7), (96, 9), (224, 23), (8, 1)])
def test_blur_taps(size, taps):
    assert draws.blur_taps(size) == taps


@pytest.mark.parametrize("channels", [1, 5])
def test_images_of_other_channels_have_the_same_draws_but_none_of_colours(channels):
    ops = tuple(name for name in draws.OPS if name != "shared_crop")
    usual = drawn(20, replace(ALL, ops=(ops, ops)))
    found = drawn(20, replace(ALL, ops=(ops, ops), channels=channels))
    assert usual.keys() - found.keys() == {"grey"}
    del usual["grey"]
    chex.assert_trees_all_equal(found, usual)

"""Every operation has words, and they say what was drawn."""

import re

import numpy as np
import pytest

from simclr_jax.augment import draws, keys, words
from simclr_jax.augment.draws import Jitter, Views
from simclr_jax.augment.policies import Steps
from simclr_jax.augment.study import Motion, Noise

VIEWS = Views(
    size=32, ops=(("crop",), ("crop",)), strength=1.0, brightness="v2",
    crop_area=(0.08, 1.0), colour_on="host", blur_on="host",
)  # fmt: skip


def said(name, drawn, **changes):
    views = Views(**{**VIEWS.__dict__, **changes})
    return words.in_words({name: drawn}, views, 40, 50)[name]


def test_every_operation_has_words():
    assert set(words.WORDS) == draws.OPS.keys() | draws.POLICIES.keys()


@pytest.mark.parametrize("name", words.WORDS)
def test_words_are_found_for_what_is_drawn(name):
    """Of 200 draws each has words or none, and some have words."""
    views = Views(**{**VIEWS.__dict__, "ops": ((name,),)})
    key = keys.image_keys(0, 0, np.arange(200), 0)
    drawn = draws.draw(key, np.full(200, 40), np.full(200, 50), views, 0)
    found = [words.in_words(words.of_row(drawn, row), views, 40, 50)[name] for row in range(200)]
    assert any(found)
    assert not any("array" in text or "float" in text for text in found)


def test_words_of_a_jitter_are_in_its_order():
    drawn = Jitter(True, 0.5, 1.25, 0.8, -0.1, np.array([3, 1, 0, 2]))
    text = "hue -36°, contrast x 1.25, brightness x 0.50, saturation x 0.80"
    assert said("jitter", drawn) == f"jitter in this order: {text}"
    assert "brightness +0.50" in said("jitter", drawn, brightness="v1")
    assert said("jitter", drawn._replace(applied=False)) == ""


@pytest.mark.parametrize(
    ("name", "drawn", "text"),
    [
        ("crop", np.array([4, 6, 20, 25]), "crop of 25x20 pixels at (6, 4), 25% of the image"),
        ("flip", True, "mirrored"),
        ("grey", False, ""),
        ("blur", 1.234, "blur, sigma 1.23 pixels"),
        ("blur", 0.0, ""),
        ("cutout", np.array([3, 7]), "grey square of 16 pixels around (7, 3)"),
        ("rotate", 3, "turned by 270° to the left"),
        ("noise", Noise(True, None), "noise, sigma 0.1"),
        ("motion_blur", Motion(True, np.pi / 2), "motion blur at 90°"),
        ("solarize", True, "solarized from 0.5 on"),
    ],
)
def test_words_of_an_operation(name, drawn, text):
    assert said(name, drawn) == text


def test_words_of_a_policy_name_both_operations_but_not_the_identity():
    steps = Steps(np.array([4, 0]), np.array([-27.0, 0.0]))
    assert said("randaugment", steps) == "rotate -27° to the left"
    steps = Steps(np.array([5, 13]), np.array([7.2, 0.4]))
    assert (
        said("autoaugment", steps) == "posterize to 7 bits, then shift along x by +40% of the side"
    )


def test_a_blur_without_an_effect_says_so():
    assert re.search("no effect", said("blur", 1.0, size=8))
    assert "no effect" not in said("blur", 1.0)


def test_a_box_is_that_of_a_crop_of_the_image_itself():
    box = np.array([10, 20, 30, 40])
    assert words.box_of({"crop": box, "flip": True}, 100, 200) == (0.1, 0.1, 0.2, 0.3)
    assert words.box_of({"flip": True, "crop": box}, 100, 200) is None
    assert words.box_of({}, 100, 200) is None


def test_words_of_other_channels_tell_neither_hue_nor_saturation():
    drawn = Jitter(True, 0.5, 1.25, 0.8, -0.1, np.array([3, 1, 0, 2]))
    expected = "jitter in this order: contrast x 1.25, brightness x 0.50"
    assert said("jitter", drawn, channels=5) == expected

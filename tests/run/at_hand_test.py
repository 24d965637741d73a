"""What is found before a run chooses its sizes."""

import numpy as np
import pytest

from simclr_jax.config import overrides, parts
from simclr_jax.data.readable import Readable
from simclr_jax.run import at_hand
from support.runs import TINY
from support.sources import encoded, npy, readable, split, write


def test_three_quarters_of_the_images_reach_the_side(tmp_path):
    for index, side in enumerate([20, 30, 30, 40, 40, 50, 50, 60, 60, 60]):
        write(tmp_path / f"{index}.png", encoded("white", "PNG", size=(side, 70)))
    found = at_hand.side_of(readable(tmp_path, held_out=0.1))
    assert found in (30, 40)


def test_the_channels_of_an_array_are_not_taken_for_a_side(tmp_path):
    for index in range(4):
        write(tmp_path / f"{index}.npy", npy(np.zeros((5, 200, 210), np.uint8)))
    images = Readable(split("folder", tmp_path), on_bad_image="error", channels=5)
    assert at_hand.side_of(images) == 200


def test_images_without_a_size_are_taken_for_small_ones(tmp_path):
    for index in range(4):
        write(tmp_path / f"{index}.png", b"no image")
    assert at_hand.side_of(readable(tmp_path)) == 32


def test_the_memory_is_that_of_this_machine():
    assert at_hand.memory() > 2**28


@pytest.mark.parametrize("seconds", [3.1e-6, 0.5, 1234.5678])
def test_what_is_agreed_on_is_exact_enough(seconds):
    assert at_hand._agreed(seconds) == pytest.approx(seconds, rel=1e-8)


@pytest.mark.slow
def test_an_image_has_a_cost(monkeypatch):
    monkeypatch.setattr(at_hand, "SECONDS", 0.2)
    source = Readable(split("digits"), on_bad_image="error")
    config = parts.with_counts(overrides.load(TINY), source)
    found, compiling = at_hand.cost(config, source)
    assert all(0 < seconds < 1 for seconds in (found.step, found.input, found.together))
    assert found.first >= found.together
    assert found.shared
    assert compiling > found.step

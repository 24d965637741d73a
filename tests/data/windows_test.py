"""Windows of large images: the pixels inside are those of the whole image, to the bit."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simclr_jax.data import windows


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_crops_of_a_window_are_those_of_the_whole_image(
    rng, monkeypatch, mode, subsampling, progressive
):
    """Without the margin, one in four of such crops differs at its edge."""
    monkeypatch.setattr(windows, "_LEAST_PIXELS", 1)
    height, width = 61, 97
    noise = Image.fromarray(rng.integers(0, 256, (20, 30, 3)).astype(np.uint8))
    file = io.BytesIO()
    noise.resize((width, height)).convert(mode).save(
        file, "JPEG", subsampling=subsampling, progressive=progressive
    )
    whole = tf.io.decode_image(file.getvalue(), channels=3).numpy()
    sizes = np.array([[height, width]])
    for y, x, rows, columns in [(1, 1, 17, 23), (9, 30, 40, 50), (44, 80, 17, 17), (0, 0, 61, 97)]:
        box = np.array([[y, x, rows, columns]])
        window = windows.around([box], sizes, np.array([True]))
        part = windows.decode(tf.constant(file.getvalue()), tf.constant(window[0]), sizes[0])
        top, left, _, _ = windows.moved(box, window)[0]
        found = part.numpy()[top : top + rows, left : left + columns]
        np.testing.assert_array_equal(found, whole[y : y + rows, x : x + columns])


def test_small_images_and_those_that_may_not_have_no_window():
    boxes = [np.tile([[10, 10, 20, 20]], (3, 1))]
    sizes = np.array([[100, 100], [1000, 1000], [1000, 1000]])
    found = windows.around(boxes, sizes, np.array([True, False, True]))
    assert found.tolist() == [[0, 0, 100, 100], [0, 0, 1000, 1000], [8, 8, 24, 24]]

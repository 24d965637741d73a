"""The contact sheet has every view with its own pixels, and the crops on the images."""

import numpy as np
from PIL import ImageColor

from simclr_jax.pages import contact


def test_views_keep_their_pixels_and_have_their_places(rng):
    views = rng.integers(0, 256, (2, 3, 130, 130, 3), np.uint8)
    rows = [contact.Row(views[row, 0], [None] * 3, [False] * 3, views[row]) for row in range(2)]
    sheet = np.asarray(contact.sheet(rows, ["one", "two", "three"]))
    assert sheet.shape == (2 * 138 + 28, 4 * 138 + 8, 3)
    for row in range(2):
        for column in range(3):
            y, x = 28 + 138 * row, 8 + 138 * (column + 1)
            np.testing.assert_array_equal(sheet[y : y + 130, x : x + 130], views[row, column])


def test_a_small_view_is_enlarged_by_a_whole_number(rng):
    view = rng.integers(0, 256, (8, 8, 3), np.uint8)
    enlarged = np.asarray(contact.fitted(view, contact.side_of(8)))
    np.testing.assert_array_equal(enlarged, np.kron(view, np.ones((16, 16, 1), np.uint8)))


def test_crops_are_drawn_in_the_colours_of_their_views():
    grey = np.full((130, 260, 3), 128, np.uint8)
    view = np.zeros((130, 130, 3), np.uint8)
    box = (0.2, 0.2, 0.5, 0.6)
    row = contact.Row(grey, [None, box], [False, False], [view, view])
    sheet = np.asarray(contact.sheet([row], ["a", "b"]))
    original = sheet[28 : 28 + 65, 8 : 8 + 130]
    colour = ImageColor.getrgb(contact.COLOURS[1])
    assert (original == colour).all(-1).any()
    ys, xs = np.nonzero((original != 128).any(-1))
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (13, 51, 26, 90)
    assert not (sheet == ImageColor.getrgb(contact.COLOURS[0])).all(-1).any()

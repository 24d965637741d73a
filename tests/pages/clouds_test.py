"""A map of images: dots within the frame, and the picture of each in its place of the sheet."""

import json

import numpy as np

from simclr_jax.pages import clouds


def drawn(places, labels, names=("cat", "dog")):
    pictures = [np.full((4, 4, 3), k, np.uint8) for k in range(len(places))]
    texts = [f"image {k}" for k in range(len(places))]
    return clouds.drawn(places, pictures, texts, labels, names, note="By PCA.")


def test_dots_lie_within_the_frame_and_have_the_colours_of_their_classes(rng):
    labels = np.array([0, 1, 1, -1, 0])
    found = drawn(rng.normal(size=(5, 2)), labels)
    for dot in found["dots"]:
        assert 0 < dot["x"] < clouds.WIDTH
        assert 0 < dot["y"] < clouds.HEIGHT
    colours = [dot["colour"] for dot in found["dots"]]
    assert colours[0] == colours[4] != colours[1] == colours[2] != colours[3]
    assert [name for name, _ in found["legend"]] == ["no label", "cat", "dog"]


def test_the_sheet_has_every_picture_where_the_script_looks_for_it(rng):
    found = drawn(rng.normal(size=(7, 2)), np.full(7, -1))
    data = json.loads(found["data"])
    for k in range(7):
        row, column = k // data["columns"], k % data["columns"]
        place = found["sheet"][row * 4 : row * 4 + 4, column * 4 : column * 4 + 4]
        assert (place == k).all()
    assert data["texts"][6] == "image 6"


def test_images_in_one_place_have_a_dot_each():
    assert len(drawn(np.zeros((3, 2)), np.full(3, -1))["dots"]) == 3


def test_many_classes_have_no_legend():
    count = clouds.NAMED + 1
    found = drawn(np.zeros((count, 2)), np.arange(count), [str(k) for k in range(count)])
    assert found["legend"] == []
    assert f"The colours of {count} classes are not listed" in found["note"]

"""The values of the page: what was drawn beside each view, and a bounded number of everything."""

import io

import numpy as np
import pytest
from PIL import Image

from simclr_jax.config import kinds
from simclr_jax.data import summary, survey
from simclr_jax.data.readable import Readable
from simclr_jax.run import previewed
from simclr_jax.run.examples import Example, View

BOX = (0.1, 0.2, 0.5, 0.4)


class Split:
    """Copies of two images; see `source.Source`."""

    multilabel, features, place, num_classes = False, (), "made-up", 150
    class_names = tuple(map(str, range(150)))

    def __init__(self, name, count):
        self.split, self._count = name, count

    def __len__(self):
        return self._count

    def name(self, index):
        return f"{self.split}/{index}"

    def load(self, indices):
        images = []
        for index in indices:
            pixels = np.random.default_rng(index // 20).integers(0, 256, (9, 9, 3), np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            images.append(buffer.getvalue())
        return images, np.zeros(len(images), np.int32)

    def labels(self):
        return np.arange(self._count, dtype=np.int32) % 150


def example(epochs):
    image = np.zeros((20, 30, 3), np.uint8)
    view = np.full((16, 16, 3), 0.5, np.float32)
    words = {"crop": "crop of 15x8 pixels", "flip": "", "grey": ""}
    views = [View(epoch, 0, view, words, BOX) for epoch in range(epochs)]
    return Example(3, "name", "cat", image, views)


@pytest.fixture(scope="module")
def values():
    splits = [Split("train", 400), Split("test", 30)]
    readable = [Readable(split, on_bad_image="replace") for split in splits]
    found = summary.of([survey.scan(split, 500) for split in splits], readable, 16)
    config = kinds.load(["--config=folder", "--config.data.image_size=16"], "")
    return previewed.values(config, [example(8)], found, readable, ["left out 1 .txt"])


def test_a_view_has_the_words_of_what_was_drawn_and_names_the_rest(values):
    (shown,) = values["examples"]
    assert shown["name"] == "name (30x20 pixels, cat)"
    assert [view["number"] for view in shown["views"]] == list(range(1, 9))
    assert shown["views"][1]["head"] == "epoch 1, view 1"
    assert shown["views"][1]["words"] == ["crop of 15x8 pixels"]
    assert shown["views"][1]["without"] == "flip, grey"
    assert (shown["views"][0]["picture"] == 128).all()


def test_crops_at_one_place_have_their_numbers_side_by_side(values):
    boxes = values["examples"][0]["boxes"]
    assert [box["later"] for box in boxes] == [False] + [True] * 7
    assert (boxes[0]["x"], boxes[0]["y"]) == (100, 200)
    shifts = [box["shift"] for box in boxes]
    assert shifts == sorted(set(shifts))
    assert [box["colour"] for box in boxes] == [1, 2, 3, 4, 5, 6, 1, 2]
    assert [box["dashed"] for box in boxes] == [False] * 6 + [True] * 2


def test_groups_and_classes_are_bounded_and_those_across_the_splits_come_first(values):
    (heading, groups, more), (_, none, _) = values["duplicates"]
    assert heading == "Same files"
    assert (len(groups), more, none) == (12, 8, [])
    assert [len(group["pictures"]) for group in groups] == [8] * 12
    assert groups[0]["more"] == 32  # 20 to train on and 20 of the 30 to evaluate on.
    assert "test/" in groups[0]["pictures"][-1]["caption"]
    assert "test/" in groups[1]["pictures"][-1]["caption"]
    assert all("(to train on)" in p["caption"] for g in groups[2:] for p in g["pictures"])
    assert len(values["classes"]) == 100
    assert "50 largest and the 50 smallest of 150 classes" in values["classes_caption"]


def test_settings_are_those_of_the_config(values):
    settings = dict(values["settings"])
    assert settings["augment.ops, each view"].startswith("crop, flip, jitter, grey, blur")
    assert settings["data.image_size"] == "16 pixels a side"

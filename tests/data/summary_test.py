"""Facts and warnings in words, from what was seen, of made-up splits."""

import io

import numpy as np
import pytest
from PIL import Image

from simclr_jax.data import summary, survey
from simclr_jax.data.readable import Readable


class Split:
    """A split in memory; see `source.Source`."""

    multilabel, features, class_names = False, (), ("a", "b", "c")

    def __init__(self, name, images, labels):
        self.split, self.place, self._images = name, "made-up", images
        self._labels = np.array(labels, np.int32)
        self.num_classes = 3 if (self._labels >= 0).any() else 0

    def __len__(self):
        return len(self._images)

    def name(self, index):
        return f"{self.split}/{index}"

    def load(self, indices):
        return [self._images[i] for i in indices], self._labels[np.asarray(indices)]

    def labels(self):
        return self._labels


def image(seed, size=(24, 20), flat=False):
    rng = np.random.default_rng(seed)
    coarse = np.full((4, 4, 3), seed) if flat else rng.integers(0, 256, (4, 5, 3))
    made = Image.fromarray(coarse.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    made.save(buffer, "PNG")
    return buffer.getvalue()


def summarized(*splits, count=1000, image_size=16):
    surveys = [survey.scan(split, count) for split in splits]
    readable = [Readable(split, on_bad_image="replace") for split in splits]
    return summary.of(surveys, readable, image_size)


@pytest.fixture(scope="module")
def found():
    train = [image(k) for k in range(10)] + [image(3), image(77, flat=True), b"nothing", image(5)]
    train += [image(20, (12, 30))]
    test = [image(4), image(30), image(31), image(6, (48, 40))]
    return summarized(
        Split("train", train, [0] * 11 + [1] * 2 + [-1] * 2), Split("test", test, [0, 1, 2, -1])
    )


def test_facts_are_counts_of_both_splits(found):
    facts = summary.facts(found)
    assert facts["images"] == "15 to train on (train), 4 to evaluate on (test)"
    assert facts["classes"] == (
        "3, from 11 images to train on ('a') to 0 ('c'); 3 images have no label"
    )
    assert facts["read"] == "all 19 images"
    assert facts["sizes"] == (
        "from 12x30 to 48x40, 3 different ones; most often 24x20 (89%); 1 smaller than the views' "
        "16 pixels"
    )
    assert facts["channels"] == "RGB, all"
    assert facts["one colour"] == "1 have a single colour"
    assert facts["same files"] == "6 images in 3 groups, 1 to evaluate on with one to train on"
    assert facts["look the same"].startswith("2 images in 1 group, 1 to evaluate on")
    assert facts["without colour"] == "1 (6%): hue".partition(":")[0]


def test_warnings_say_what_is_wrong_and_how_often(found):
    assert summary.warnings(found) == [
        "1 of 18 images is smaller than 16 pixels, the side of the views: they are enlarged",
        "1 of 19 images is broken: 'made-up/train/12' (not an image)",
        "1 image to evaluate on is among those to train on as well",
        "1 image to evaluate on looks like one to train on",
        "3 of 18 images are copies of others, byte for byte",
        "1 of 18 images is of a single colour",
        "1 of 3 classes has no image to train on",
    ]


def test_good_images_give_no_warning_and_unlabelled_ones_no_classes():
    found = summarized(Split("train", [image(k) for k in range(5)], [-1] * 5))
    assert summary.warnings(found) == []
    assert found.classes is None
    assert summary.facts(found)["classes"] == "none: the images have no labels"
    assert (found.exact, found.near, found.leaks(found.near)) == ([], [], 0)


def test_a_class_much_larger_than_another_is_a_warning():
    images = [image(k) for k in range(23)]
    found = summarized(Split("train", images, [0] * 20 + [1] * 2 + [2]))
    assert summary.warnings(found) == [
        "the largest class has 20 times as many images as the smallest one"
    ]


def test_a_sample_is_said_to_be_one():
    found = summarized(Split("train", [image(k) for k in range(9)], [0, 1, 2] * 3), count=4)
    assert summary.facts(found)["read"] == ("4 of 9 images, evenly spaced; the rest is not known")
    assert found.classes.counts.tolist() == [[3, 3, 3]]  # Labels are at hand without reading.
    assert "each with 3 images" in summary.facts(found)["classes"]


def test_labels_of_many_records_are_counted_in_those_that_were_read(monkeypatch):
    monkeypatch.setattr("simclr_jax.data.summary.FEW_LABELS", 5)
    split = Split("train", [image(k) for k in range(9)], [0, 1, 2] * 3)
    split.features = ("image", "label")
    found = summarized(split, count=3)  # Those at 0, 4 and 8.
    assert found.classes.counts.tolist() == [[1, 1, 1]]
    assert "(counted in 3 images that were read)" in summary.facts(found)["classes"]
    none = summarized(split, count=0)
    assert summary.facts(none)["classes"] == "3; not counted, since no image was read"
    assert summary.warnings(none) == []


def test_several_labels_of_an_image_count_in_each_class():
    split = Split("train", [image(k) for k in range(2)], [0, 0])
    split._labels = np.array([[1, 1, 0], [1, -1, -1]], np.int8)
    split.multilabel = True
    assert summarized(split).classes.counts.tolist() == [[2, 1, 0]]


def test_sizes_fall_into_ranges_of_which_one_begins_at_the_side_of_the_views():
    sizes = [(10, 30), (15, 16), (16, 16), (31, 90), (32, 32), (70, 64)]
    images = [image(k, size) for k, size in enumerate(sizes)]
    found = summarized(Split("train", images, [-1] * 6))
    ranges = [("8 to 15", 2), ("16 to 31", 2), ("32 to 63", 1), ("64 to 127", 1)]
    assert summary.sizes(found) == ranges
    assert summary.shapes(found)[0] == ("10x30", 1)
    assert sum(count for _, count in summary.shapes(found)) == 6


def test_broken_images_are_named_with_their_reasons(found):
    assert found.broken() == [("made-up/train/12", "not an image")]


def test_every_format_and_all_transparency_is_counted():
    made = Image.new("RGB", (24, 24), "teal")
    kinds = ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "JPEG2000", "PPM", "AVIF"]
    images = []
    for kind in kinds:
        buffer = io.BytesIO()
        made.save(buffer, kind)
        images.append(buffer.getvalue())
    for alpha in (0, 255):
        buffer = io.BytesIO()
        Image.new("RGBA", (24, 24), (9, 9, 9, alpha)).save(buffer, "PNG")
        images.append(buffer.getvalue())
    facts = summary.facts(summarized(Split("train", images, [-1] * len(images))))
    assert [kind for kind in kinds if f"{kind} " not in facts["formats"]] == []
    assert facts["transparency"] == (
        "2 images with an alpha channel or a transparent colour, 1 of them with pixels that are "
        "not opaque; transparency is left out"
    )

"""Copies are found, what only has the same outline is not, and splits are told apart."""

import io

import numpy as np
import pytest
from PIL import Image

from simclr_jax.data import duplicates


def photo(seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((80, 60), Image.Resampling.BICUBIC)


def as_jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def near(images, digests=None):
    found = [duplicates.thumbnail(np.asarray(image.convert("RGB"))) for image in images]
    return duplicates.near(
        digests or [bytes([k]) for k in range(len(images))],
        np.array([hashed for _, hashed in found], np.uint64),
        np.stack([small for small, _ in found]),
        np.array([np.ptp(small) == 0 for small, _ in found]),
    )


CHANGES = {
    "smaller": lambda image: image.resize((40, 30)),
    "another aspect": lambda image: image.resize((64, 64)),
    "compressed": lambda image: as_jpeg(image, 30),
    "darker": lambda image: image.point(lambda value: value // 2 + 20),
    "grey": lambda image: image.convert("L"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_looks_the_same(change):
    assert near([photo(0), photo(1), CHANGES[change](photo(0)), photo(2)]) == [[0, 2]]


@pytest.mark.parametrize(
    "change", [lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
               lambda image: image.point(lambda value: 255 - value)],
    ids=["mirrored", "inverted"],
)  # fmt: skip
def test_what_is_no_copy_does_not(change):
    assert near([photo(0), change(photo(0))]) == []


def test_other_images_do_not_look_the_same():
    assert near([photo(seed) for seed in range(60)]) == []


def test_a_hash_alone_does_not_make_copies(monkeypatch):
    """Two drawings on white paper: few of their pixels are lighter than the one to the left."""
    papers = []
    for place in (12, 40):
        paper = np.full((60, 80, 3), 255, np.uint8)
        paper[place : place + 3, 76:] = 0
        papers.append(Image.fromarray(paper))
    assert near(papers) == []
    monkeypatch.setattr("simclr_jax.data.duplicates.NEAR_CORRELATION", -1.0)
    assert near(papers) == [[0, 1]]


def test_images_of_one_colour_are_left_out():
    assert near([Image.new("RGB", (9, 9), colour) for colour in ("red", "blue", "red")]) == []


def test_a_group_has_exact_copies_too_but_is_none_of_them_alone():
    one, other = photo(0), photo(0).resize((40, 30))
    assert near([one, one, photo(1)], [b"a", b"a", b"b"]) == []
    assert near([one, photo(1), one, other], [b"a", b"b", b"a", b"c"]) == [[0, 2, 3]]


def test_a_chain_is_one_group():
    """The first and the last differ by more bits than two of one group may."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (16, 16)).astype(np.uint8)
    hashes = np.array([0, 0b111, 0b111111, 0b111111111], np.uint64)
    digests = [bytes([k]) for k in range(4)]
    found = duplicates.near(digests, hashes, np.stack([small] * 4), np.zeros(4, bool))
    assert found == [[0, 1, 2, 3]]
    assert (
        duplicates.near(digests[::3], hashes[::3], np.stack([small] * 2), np.zeros(2, bool)) == []
    )


def test_groups_across_a_border_are_found():
    groups = [[0, 1], [2, 5], [3, 4], [6, 7]]
    assert duplicates.across(groups, 4) == [[2, 5], [3, 4]]

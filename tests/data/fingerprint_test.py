"""The identity of images: it survives a move, and nothing else."""

import os
import shutil

import pytest

from simclr_jax.data.digits import Digits
from simclr_jax.data.fingerprint import (
    MAX_NAMES,
    cache_key,
    classes,
    differences,
    fingerprint,
    other_classes,
)
from support.sources import encoded, split, write


@pytest.fixture
def images(tmp_path):
    """A folder of two classes with five images each, all files of one size."""
    for k in range(10):
        write(tmp_path / f"set/{'ab'[k % 2]}/{k}.bmp", encoded((25 * k, 0, 0), "BMP"))
    return tmp_path / "set"


def compared(folder, before):
    return differences(fingerprint(split("folder", folder)), before)


def test_many_classes_have_a_digest_of_their_names_in_order():
    many = [str(k) for k in range(MAX_NAMES + 1)]
    assert classes(many[:-1]) == many[:-1]
    assert classes(many) == classes(list(many)) != classes(many[::-1])
    assert len(classes(many)) == 32
    assert other_classes(classes(many), classes(many[::-1])) == "other classes, or another order"
    assert other_classes(classes(many), None) is None


def test_moved_and_copied_images_are_the_same(images, tmp_path):
    source = split("folder", images)
    before, key = fingerprint(source), cache_key(source)
    shutil.copytree(images, tmp_path / "copy", copy_function=shutil.copyfile)
    assert compared(tmp_path / "copy", before) == []
    assert cache_key(split("folder", tmp_path / "copy")) != key
    assert cache_key(split("folder", images)) == key


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda folder: (folder / "a/2.bmp").rename(folder / "a/10.bmp"), ["names"]),
        (lambda folder: (folder / "a/8.bmp").rename(folder / "b/8.bmp"), ["names"]),
        (lambda folder: (folder / "b/9.bmp").unlink(), ["images", "names"]),
        (lambda folder: write(folder / "a/4.bmp", encoded("red", "BMP")), ["bytes"]),
        (lambda folder: write(folder / "a/4.bmp", encoded("red", "PNG")), ["sizes", "bytes"]),
    ],
)
def test_what_differs_is_named(images, change, parts):
    before = fingerprint(split("folder", images))
    change(images)
    assert compared(images, before) == parts


def test_images_written_again_have_another_key(images):
    key = cache_key(split("folder", images))
    os.utime(images / "a/0.bmp", (0, 0))
    assert cache_key(split("folder", images)) != key


def test_labels_that_stand_for_others_have_another_key(images):
    """Features are kept with their labels, which a class of another split numbers anew."""
    for k in range(4):
        write(images / f"test/{'ab'[k % 2]}/{k}.bmp", encoded((9 * k, 0, 0), "BMP"))
        write(images / f"train/{'ab'[k % 2]}/{k}.bmp", encoded((9 * k, 9, 0), "BMP"))
    shutil.rmtree(images / "a")
    shutil.rmtree(images / "b")
    key = cache_key(split("folder", images, "eval"))
    write(images / "train/0/9.bmp", encoded("red", "BMP"))
    test = split("folder", images, "eval")
    assert test.load([0])[1] == [1]
    assert cache_key(test) != key


def test_labels_count_only_where_they_are_used():
    labelled, unlabelled = (fingerprint(Digits("test"), labelled=used) for used in (True, False))
    assert "labels" in labelled
    assert "labels" not in unlabelled
    assert differences(labelled, unlabelled) == []


def test_a_fingerprint_is_the_same_in_every_process_and_version():
    """With other digests every run so far would look changed."""
    assert fingerprint(Digits("test")) == {
        "split": "test",
        "images": 360,
        "names": "08d970f117da768e54a73c58f5deda93",
        "labels": "0081c62245690c69f4f1fe1f49b13502",
    }

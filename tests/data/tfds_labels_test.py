"""Several labels of an image, as TFDS lists them in a record."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_jax.augment.draws import Views
from simclr_jax.data import pipeline
from simclr_jax.data.order import Order
from simclr_jax.data.readable import Readable
from simclr_jax.data.source import has_labels
from simclr_jax.data.tfds_labels import SeveralLabels
from simclr_jax.errors import UserError
from support.scenes import CLASSES, scenes_of
from support.sources import said, split


def pixels(images):
    return [tf.io.decode_png(image).numpy().tobytes() for image in images]


@pytest.fixture
def by_pixels():
    """{the pixels of an image of train: its labels}."""
    return {x.tobytes(): labels.tolist() for x, labels in zip(*scenes_of("train"), strict=True)}


@pytest.mark.parametrize("key", ["labels", "labels_no_difficult"])
def test_a_class_is_there_or_absent_or_difficult_and_then_not_counted(
    scenes, by_pixels, key, capsys
):
    train = split("scenes", scenes, label_key=key)
    assert "a class of which an image has difficult objects alone" in capsys.readouterr().out
    assert (train.num_classes, train.class_names, train.multilabel) == (3, CLASSES, True)
    images, labels = train.load(np.arange(60))
    assert (labels.dtype, labels.shape) == (np.int8, (60, 3))
    assert labels.tolist() == [by_pixels[each] for each in pixels(images)]
    assert {-1, 0, 1} == set(labels.ravel().tolist())
    np.testing.assert_array_equal(train.labels(), labels)
    np.testing.assert_array_equal(train.load([7, 2, 7])[1], labels[[7, 2, 7]])


def test_they_are_labels_only_where_they_are_named(scenes, capsys):
    train = split("scenes", scenes)
    assert (train.num_classes, train.multilabel) == (0, False)
    line = "scenes: used without labels; an image can have several of them, in labels, labels_no_"
    assert line in capsys.readouterr().out
    with pytest.raises(UserError, match="is no feature here; it can be labels, labels_no_diff"):
        split("scenes", scenes, label_key="label")


def test_they_stay_with_their_images_in_a_part_of_a_split_and_in_batches(scenes, by_pixels):
    half = split("scenes", scenes, label_key="labels", train_split="train[:50%]")
    source = Readable(half, on_bad_image="error")
    assert source.multilabel
    assert has_labels(half)
    views = Views(
        size=9,
        ops=((),),
        strength=0.0,
        brightness="v2",
        crop_area=(1.0, 1.0),
        colour_on="host",
        blur_on="host",
    )
    (batch,) = pipeline.train_batches(
        source, Order(30, 16, 0), views, rows=np.arange(16), start_step=0, stop_step=1,
        transfer_dtype="uint8",
    )  # fmt: skip
    assert (batch["label"].dtype, batch["label"].shape) == (np.int8, (16, 3))
    assert batch["label"].tolist() == [by_pixels[x.tobytes()] for x in batch["image"][:, 0]]
    unused = Readable(half, on_bad_image="error", labelled=False)
    assert not unused.multilabel
    assert unused.load([0, 1])[1].tolist() == [-1, -1]


def test_a_split_in_which_no_image_has_any_has_no_labels():
    label = SeveralLabels(("labels",), 3)
    parsed = {"labels": tf.ragged.constant([[], [-1], []], tf.int64)}
    assert label.read(parsed).tolist() == [[0] * 3] * 3
    assert not label.given(label.read(parsed)).any()
    assert label.given(label.none(2)).all()


def test_a_label_outside_the_classes_is_named():
    parsed = {"labels": tf.ragged.constant([[0], [2, 3]], tf.int64)}
    with pytest.raises(UserError, match="'labels' has the label 3, outside 0 … 2"), said():
        SeveralLabels(("labels",), 3).read(parsed)

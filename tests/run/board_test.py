"""What TensorBoard shows of a run in pictures, read back from its files."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simclr_jax import train
from simclr_jax.augment.device import Late
from simclr_jax.data.digits import Digits
from simclr_jax.data.readable import Readable
from simclr_jax.run import board
from support.runs import TINY, status_of


def decoded(image):
    return np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))


def pictured(folder):
    """{(tag, step): the pixels of a picture} of all event files in a folder."""
    return {
        (value.tag, event.step): np.asarray(
            Image.open(io.BytesIO(value.image.encoded_image_string))
        )
        for path in sorted(folder.glob("events*"))
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
        if value.HasField("image")
    }


@pytest.mark.slow
def test_a_run_shows_its_first_views_once_and_its_last_representations(tmp_path):
    flags = ["--config.log.tensorboard=true", "--config.checkpoint.every_steps=1"]
    for steps in (1, 2):
        more = [*flags, f"--config.train.steps={steps}", f"--workdir={tmp_path}"]
        assert status_of(train.main, *TINY, *more, "--allow_config_change") == 0
    folder = tmp_path / "tensorboard"
    ((tag, shown),) = pictured(folder).items()
    assert (tag, shown.shape) == (("views", 0), (2 * 8, 8 * 8, 3))
    assert shown.std() > 10
    assert 'tensor_name: "h, step 2"' in (folder / "projector_config.pbtxt").read_text()
    lines = (folder / "projector/metadata.tsv").read_text().splitlines()
    assert lines[0] == "class\timage"
    assert len(lines) == 361
    assert np.loadtxt(folder / "projector/tensors.tsv", delimiter="\t").shape == (360, 32)


def test_the_views_of_an_image_are_a_column(rng):
    batch = {
        "image": rng.integers(0, 256, (9, 2, 4, 4, 3), np.uint8),
        "label": np.zeros(9, np.int32),
        "blur_sigma": np.zeros((9, 2), np.float32),
    }
    shown = board.first_views(batch, Late())
    assert shown.shape == (8, 32, 3)
    np.testing.assert_array_equal(shown[4:, 8:12], batch["image"][2, 1])


def test_points_are_told_by_their_classes_and_names_as_far_as_there_are_any():
    labels, index = np.array([3, -1], np.int32), np.array([5, 7])
    labelled = Readable(Digits("test"), on_bad_image="error")
    told = board.texts(labelled, index, labels)
    assert told["class"] == ["3", ""]
    unlabelled = Readable(labelled.source, on_bad_image="error", labelled=False)
    assert board.texts(unlabelled, index, labels) == {"image": told["image"]}
    several = np.array([[1, 0, 1] + 7 * [0], [-1] + 9 * [0]], np.int8)
    assert board.texts(labelled, index, several)["class"] == ["0, 2", ""]

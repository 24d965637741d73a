"""The files of TensorBoard's projector, read as it reads them."""

import io
import os

import numpy as np
import pytest
from etils import epath
from PIL import Image

from simclr_jax.store import projector


def test_a_vector_its_texts_and_its_thumbnail_have_the_same_place(rng, tmp_path):
    x = rng.normal(size=(5, 3)).astype(np.float32)
    thumbnails = rng.integers(0, 256, (5, 4, 4, 3), np.uint8)
    columns = {"class": ["a", "b\nb", "a", "", "c"], "image": [f"{i}.jpg" for i in range(5)]}
    for _ in range(2):  # A second time, nothing is added.
        projector.write(epath.Path(tmp_path), x, columns, thumbnails, name="h, step 8")
    config = (tmp_path / "projector_config.pbtxt").read_text()
    assert config.count("embeddings {") == 1
    for line in (
        'tensor_name: "h, step 8"', 'tensor_path: "projector/tensors.tsv"',
        'metadata_path: "projector/metadata.tsv"', 'image_path: "projector/sprite.png"',
    ):  # fmt: skip
        assert line in config
    assert config.count("single_image_dim: 4") == 2
    found = np.loadtxt(tmp_path / "projector/tensors.tsv", delimiter="\t")
    np.testing.assert_allclose(found, x, rtol=1e-4)
    lines = (tmp_path / "projector/metadata.tsv").read_text().splitlines()
    assert lines[:3] == ["class\timage", "a\t0.jpg", "b b\t1.jpg"]
    assert len(lines) == 6
    sprite = np.asarray(Image.open(tmp_path / "projector/sprite.png"))
    assert sprite.shape == (12, 12, 3)
    np.testing.assert_array_equal(sprite[4:8, 0:4], thumbnails[3])


def test_names_that_are_not_utf_8_have_replacement_characters(tmp_path):
    columns = {"image": [os.fsdecode(b"caf\xe9/1.jpg")]}
    thumbnails = np.zeros((1, 4, 4, 3), np.uint8)
    projector.write(epath.Path(tmp_path), np.ones((1, 3)), columns, thumbnails, name="h")
    assert (tmp_path / "projector/metadata.tsv").read_text() == "caf\ufffd/1.jpg\n"


def test_thumbnails_that_tensorboard_would_not_take_are_refused():
    with pytest.raises(ValueError, match="2 thumbnails of 5000 pixels pass 8192 pixels a side"):
        projector.sprite(np.zeros((2, 5000, 1, 3), np.uint8))


def test_a_picture_comes_back_from_its_png(rng):
    pixels = rng.integers(0, 256, (3, 5, 3), np.uint8)
    np.testing.assert_array_equal(Image.open(io.BytesIO(projector.png(pixels))), pixels)

"""The views that are shown are those of the training, and the words are what was drawn."""

from functools import partial

import jax
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simclr_jax.augment import device, draws, host, keys, words
from simclr_jax.config import inputs, kinds, sources
from simclr_jax.run import examples

DIGITS = ["--config=digits", "--config.data.image_size=8", "--config.train.batch_size=16"]
BY_ONE = "--config.augment.ops=shared_crop,rotate,noise,jitter,grey,blur,solarize"


def opened(*flags):
    config = kinds.load(flags, "")
    dataset = sources.open_dataset(config)
    return config, sources.open_split(config, "train", dataset)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(24):
        size = (40 + number, 30 + 2 * number, 3)
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(folder / f"{number:02}.png")
    (folder / "11.png").write_bytes(b"nothing")
    return folder


@pytest.mark.parametrize(
    "flags",
    [
        DIGITS,
        [*DIGITS, BY_ONE],
        [*DIGITS, "--config.augment.colour_on=device", "--config.data.transfer_dtype=float32",
         "--config.augment.ops=crop,flip,jitter,grey,blur", "--config.data.image_size=24"],
        ["--config=folder", "--config.train.batch_size=10", "--config.data.image_size=24"],
    ],
    ids=["whole batches", "one by one", "on the device", "a folder"],
)  # fmt: skip
def test_views_are_those_of_the_training_batch(flags, folder):
    of_folder = [f"--config.data.dir={folder}"] if "--config=folder" in flags else []
    config, source = opened(*flags, *of_folder)
    rows, size = np.arange(config.train.batch_size), config.train.batch_size
    (batch,) = inputs.train_batches(config, source, rows=rows, start_step=1, stop_step=2)
    wanted = jax.jit(partial(device.views_of, late=inputs.late(config)))(batch)
    index, epoch = inputs.order(config, len(source)).batch(1)
    assert len(set(epoch.tolist())) == 1  # A batch of one epoch, which can be made at once.
    (found,) = examples.views_of(config, source, index, [int(epoch[0])])
    np.testing.assert_array_equal(found, np.asarray(wanted).reshape(found.shape))
    assert found.shape[:2] == (size, 2)
    assert (found[:, 0] != found[:, 1]).any()
    # Of a few images among them they are the same, but for the device's rounding.
    (some,) = examples.views_of(config, source, index[3:5], [int(epoch[0])])
    np.testing.assert_allclose(some, found[3:5], atol=1e-6)


def test_later_views_are_those_of_later_epochs(folder):
    config, source = opened("--config=folder", f"--config.data.dir={folder}", "--config.seed=3",
                            "--config.data.image_size=16")  # fmt: skip
    found = examples.of_run(config, source, images=3, views=5)
    assert [(view.epoch, view.number) for view in found[0].views] == [
        (0, 0), (0, 1), (1, 0), (1, 1), (2, 0),
    ]  # fmt: skip
    settings = inputs.views(config)
    for example in found:
        view = example.views[3]
        height, width = example.image.shape[:2]
        key = keys.image_keys(3, np.array([1]), np.array([example.number]), 1)
        drawn = draws.draw(key, np.array([height]), np.array([width]), settings, 1)
        one = words.of_row(drawn, 0)
        tensors = tf.nest.map_structure(tf.constant, one)
        made = host.random_view(tf.constant(example.image), tensors, settings.applied(1), settings)
        np.testing.assert_allclose(view.image, np.clip(made, 0, 1), atol=1.5 / 255)
        y, x, rows, columns = one["crop"]
        assert view.box == (x / width, y / height, columns / width, rows / height)
        assert f"crop of {columns}x{rows} pixels at ({x}, {y})" in view.words["crop"]


def test_an_image_that_cannot_be_read_is_not_shown(folder):
    flags = ["--config=folder", f"--config.data.dir={folder}", "--config.data.image_size=16"]
    config, source = opened(*flags)
    found = examples.of_run(config, source, images=len(source), views=2)
    assert len(found) == len(source) - len(source.bad) < len(source) + len(source.bad)
    assert all(source.readable([example.number]).all() for example in found)
    assert len(examples.of_run(config, source, images=2, views=2)) == 2

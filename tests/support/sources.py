"""Images to be read, where they are read from, and what the user is told of them."""

import contextlib
import io

import numpy as np
import pytest
from PIL import Image as Pillow

from simclr_jax import cli
from simclr_jax.data import splits
from simclr_jax.data.images import Loaded
from simclr_jax.data.readable import Readable
from simclr_jax.errors import ArgumentError


def encoded(colour, kind="JPEG", mode="RGB", size=(12, 10), **kwargs):
    """A file's content: an image of one colour."""
    buffer = io.BytesIO()
    Pillow.new("RGB", size, colour).convert(mode).save(buffer, kind, **kwargs)
    return buffer.getvalue()


def npy(array):
    """The content of a .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def tiff(array, **kwargs):
    """The content of a TIFF that Pillow would not write."""
    tifffile = pytest.importorskip("tifffile", reason="needs simclr_jax[tiff]")
    file = io.BytesIO()
    tifffile.imwrite(file, array, **kwargs)
    return file.getvalue()


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def pixel(data):
    """The mean colour of an image, encoded or loaded."""
    if isinstance(data, bytes):
        data = Loaded(data, 0, 0, decoded=False)
    return data.pixels().reshape(-1, 3).mean(axis=0)


def levels(source, indices):
    """(the grey level of each image, its label)."""
    images, labels = source.load(indices)
    return [int(pixel(image)[0]) for image in images], labels.tolist()


@contextlib.contextmanager
def said():
    """What is refused inside, as the command line says it."""
    try:
        yield
    except ArgumentError as error:
        raise cli.named(error) from error


def split(name, directory=None, which="train", seed=0, held_out=0.2, **kwargs):
    """The training or the evaluation split of a dataset."""
    options = {"train_split": "train", "eval_split": None, "cache_bytes": 2**20, **kwargs}
    directory = None if directory is None else str(directory)
    with said():
        dataset = splits.Splits(name, directory=directory, **options)
        return splits.open_split(which, dataset, seed=seed, held_out=held_out)


def readable(directory, on_bad_image="replace", **kwargs):
    """The training split of a folder, of which every image can be read."""
    return Readable(split("folder", directory, **kwargs), on_bad_image=on_bad_image)

"""Sources: what is read, from where, and what happens to what cannot be."""

import contextlib
import io
import os

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from simclr_jax import cli
from simclr_jax.data import images as images_of
from simclr_jax.data import source as sources
from simclr_jax.data import splits, tfrecord
from simclr_jax.data.digits import Digits
from simclr_jax.data.source import Readable
from simclr_jax.data.splits import open_split
from simclr_jax.errors import ArgumentError, FileError, UserError


def encoded(colour, kind="JPEG", mode="RGB", size=(12, 10), **kwargs):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).convert(mode).save(buffer, kind, **kwargs)
    return buffer.getvalue()


def split(name, directory=None, which="train", seed=0, held_out=0.2, **kwargs):
    options = {"train_split": "train", "eval_split": None, "cache_bytes": 2**20, **kwargs}
    directory = None if directory is None else str(directory)
    with said():
        dataset = splits.Splits(name, directory=directory, **options)
        return open_split(which, dataset, seed=seed, held_out=held_out)


@contextlib.contextmanager
def said():
    """What is refused inside, as the command line says it."""
    try:
        yield
    except ArgumentError as error:
        raise cli.named(error) from error


def pixel(data):
    image = tf.io.decode_image(data, channels=3, expand_animations=False).numpy()
    return image.reshape(-1, 3).mean(axis=0)


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_digits_are_split_once_and_for_all():
    train, test = Digits("train"), Digits("test")
    assert (len(train), len(test)) == (1437, 360)
    images, labels = train.load(np.arange(1437))
    held, _ = test.load(np.arange(360))
    assert len(set(images) | set(held)) > 1790  # a few digits are drawn twice in the set itself
    assert np.bincount(labels).min() > 130
    assert tf.io.decode_png(images[0]).shape == (8, 8, 1)


def test_nested_folders_are_classes_in_order(tmp_path):
    for name, colour in [("b", "blue"), ("a", "red")]:
        for k in range(2):
            write(tmp_path / "train" / name / f"{k}.jpg", encoded(colour))
    write(tmp_path / "val" / "b" / "deep" / "x.png", encoded("blue", "PNG"))
    train, test = split("folder", tmp_path), split("folder", tmp_path, "eval")
    assert (len(train), train.num_classes) == (4, 2)
    images, labels = train.load([0, 1, 2, 3])
    assert labels.tolist() == [0, 0, 1, 1]
    assert pixel(images[0])[0] > 200
    assert test.load([0])[1].tolist() == [1]  # the class number that training uses


def test_flat_folders_are_unlabelled_and_hold_a_share_out(tmp_path):
    for k in range(20):
        write(tmp_path / f"{k:02}.jpg", encoded((k, 0, 0)))
    train, test = split("folder", tmp_path), split("folder", tmp_path, "eval")
    assert (len(train), len(test), train.num_classes) == (16, 4, 0)
    names = [{s.name(i) for i in range(len(s))} for s in (train, test)]
    assert not names[0] & names[1]
    assert train.load([0])[1].tolist() == [-1]
    other = split("folder", tmp_path, "eval", seed=1)
    assert {other.name(i) for i in range(4)} != names[1]


def test_one_folder_alone_is_no_label(tmp_path):
    write(tmp_path / "images" / "x.jpg", encoded("red"))
    write(tmp_path / "images" / "y.jpg", encoded("red"))
    assert split("folder", tmp_path, eval_split="train").num_classes == 0


def test_hidden_files_and_other_files_are_left_out(tmp_path):
    write(tmp_path / "x.JPG", encoded("red"))
    write(tmp_path / ".y.jpg", encoded("red"))
    write(tmp_path / ".git" / "z.jpg", encoded("red"))
    write(tmp_path / "notes.txt", b"no image")
    write(tmp_path / "w.jpeg", encoded("red"))
    assert len(split("folder", tmp_path, eval_split="train")) == 2


FORMATS = {
    "grey.jpg": encoded("white", mode="L"),
    "cmyk.jpg": encoded("white", mode="CMYK"),
    "rgba.png": encoded("white", "PNG", mode="RGBA"),
    "palette.png": encoded("white", "PNG", mode="P"),
    "bilevel.png": encoded("white", "PNG", mode="1"),
    "plain.bmp": encoded("white", "BMP"),
    "palette.bmp": encoded("white", "BMP", mode="P"),
    "still.gif": encoded("white", "GIF"),
    "moving.gif": encoded(
        "white", "GIF", save_all=True, append_images=[Image.new("RGB", (12, 10), "black")]
    ),
    "plain.webp": encoded("white", "WEBP"),
    "one pixel é.jpg": encoded("white", size=(1, 1)),
}


def test_every_format_becomes_rgb(tmp_path):
    for name, data in FORMATS.items():
        write(tmp_path / name, data)
    deep = np.full((10, 12), 65535, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    source = readable(tmp_path, eval_split="train")
    images, _ = source.load(np.arange(len(source)))
    assert len(images) == len(FORMATS) + 1
    assert not source.bad
    for index, data in enumerate(images):
        np.testing.assert_allclose(pixel(data), 255, atol=1, err_msg=source.in_words(index))


def readable(directory, on_bad_image="replace", **kwargs):
    return Readable(split("folder", directory, **kwargs), on_bad_image=on_bad_image)


@pytest.fixture
def damaged(tmp_path):
    """Ten images of ten greys, of which 2, 3, 7 and 9 cannot be read."""
    for k in range(10):
        write(tmp_path / f"{k}.jpg", encoded((k * 20,) * 3))
    whole = encoded("red", size=(200, 200))
    (tmp_path / "2.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "3.jpg").write_bytes(b"")
    (tmp_path / "7.jpg").write_bytes(b"\xff\xd8 no image at all")
    (tmp_path / "9.jpg").write_bytes(b"text")
    return tmp_path


def test_unreadable_images_are_replaced_by_the_next_and_counted(damaged, monkeypatch):
    lines = []
    monkeypatch.setattr(sources._log, "warning", lambda text, *args: lines.append(text % args))
    source = readable(damaged, eval_split="train")
    images, _ = source.load(np.arange(10))
    levels = [round(pixel(image)[0] / 20) for image in images]
    assert levels == [0, 1, 4, 4, 4, 5, 6, 8, 8, 0]
    assert sorted(source.bad) == [2, 3, 7, 9]
    source.load([2, 3])
    assert len([line for line in lines if "2.jpg" in line]) == 1  # named once


def test_unreadable_images_can_end_the_run(damaged):
    source = readable(damaged, "error", eval_split="train")
    with pytest.raises(UserError, match=r"config.*on_bad_image='error'.*2\.jpg.*unread"), said():
        source.load([0, 1, 2])


def spoil(path):
    """Zeroes the second half of the file."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2].ljust(len(data), b"\0"))


@pytest.mark.parametrize("harm", [os.remove, spoil])
def test_a_file_that_vanishes_or_rots_after_it_was_read_is_replaced(damaged, harm):
    source = readable(damaged, eval_split="train")
    source.load([0])
    harm(damaged / "0.jpg")
    images, _ = source.load([0])
    assert round(pixel(images[0])[0] / 20) == 1
    assert "0.jpg" in source.in_words(next(iter(source.bad)))


def test_names_cannot_forge_lines_of_the_log(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(sources._log, "warning", lambda text, *args: lines.append(text % args))
    write(tmp_path / "a.jpg", encoded("red"))
    write(tmp_path / "b\n\x1b[2Jdone: step 9.jpg", b"x")
    readable(tmp_path, eval_split="train").load([0, 1])
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert "\x1b" not in lines[0]


def test_a_decompression_bomb_is_refused_by_its_header(monkeypatch):
    monkeypatch.setattr(images_of, "MAX_PIXELS", 100)
    with pytest.raises(ValueError, match="12x10 pixels are more than 100"):
        images_of.decodable(encoded("red"))


def test_a_folder_of_nothing_readable_says_so(tmp_path):
    write(tmp_path / "a.jpg", b"x")
    write(tmp_path / "b.jpg", b"y")
    with pytest.raises(UserError, match=r"data\.dir: none of the 2 images can be"), said():
        readable(tmp_path, eval_split="train").load([0])


@pytest.mark.parametrize(
    ("name", "directory", "eval_split", "line"),
    [
        ("folder", None, None, "config.data.dir=None"),
        ("folder", "nowhere", None, "config.data.dir='nowhere': no such folder"),
        ("folder", ".", None, "no images in it"),
        ("folder", ".", "validation", "config.data.eval_split='validation': the folder has"),
        ("digits", None, "validation", "config.data.eval_split='validation': digits has"),
        ("cifar10", ".", None, "config.data.dir='.': 'cifar10' is not prepared"),
        ("no_such_set", ".", None, "config.data.name='no_such_set'"),
        ("huggingface:x", ".", None, "config.data.name='huggingface:x'"),
    ],
)
def test_missing_data_are_named(tmp_path, monkeypatch, name, directory, eval_split, line):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        split(name, directory, "eval", eval_split=eval_split)
    assert line in str(error.value)


def test_a_folder_too_small_to_hold_out_from_is_named(tmp_path):
    write(tmp_path / "a.jpg", encoded("red"))
    with pytest.raises(UserError, match=r"config\.data\.held_out=0\.2: is 0 of 1 images"):
        split("folder", tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "train"):
        write(tmp_path / name / "x.jpg", encoded("red"))
    source = split("folder", tmp_path, eval_split="train")
    assert (len(source), source.num_classes) == (2, 2)


def test_nothing_is_held_out_where_an_evaluation_split_is_named(prepared):
    """Slices of one split divide it between them, whatever else there is."""
    slices = {"train_split": "train[:75%]", "eval_split": "train[75%:]"}
    train, test = (split("tiny", prepared, which, **slices) for which in ("train", "eval"))
    assert (len(train), len(test)) == (15, 5)
    assert not set(levels(train, np.arange(15))[0]) & set(levels(test, np.arange(5))[0])


class Labelled:
    """A source with a label that is no class, as TFDS gives unlabelled splits."""

    num_classes = 3
    split = "unlabelled"
    place = "set"

    def __len__(self):
        return 2

    def name(self, index):
        return f"record {index}"

    def fingerprint(self):
        return ""

    def load(self, indices):
        return [encoded("red")] * len(indices), np.full(len(indices), -1, np.int32)


def test_labels_outside_the_classes_are_named_or_unused():
    with pytest.raises(UserError, match=r"'set/record 1' has the label -1, outside 0 … 2"), said():
        Readable(Labelled(), on_bad_image="replace").load([1])
    unlabelled = Readable(Labelled(), on_bad_image="replace", labelled=False)
    assert unlabelled.num_classes == 0
    assert unlabelled.load([0, 1])[1].tolist() == [-1, -1]


class Tiny(tfds.core.GeneratorBasedBuilder):
    """20 training and 10 test images, each of one grey level."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=3),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 20), "test": self._generate_examples(20, 30)}

    def _generate_examples(self, low, high):
        for k in range(low, high):
            yield k, {"image": np.full((4, 4, 3), k, np.uint8), "label": k % 3}


@pytest.fixture(scope="module", params=["tfrecord", "array_record"])
def prepared(request, tmp_path_factory):
    """A TFDS data directory in each of TFDS' two formats."""
    folder = tmp_path_factory.mktemp(request.param)
    Tiny(data_dir=folder, file_format=request.param).download_and_prepare()
    return folder


def levels(source, indices):
    images, labels = source.load(indices)
    return [int(pixel(image)[0]) for image in images], labels.tolist()


def test_a_version_that_is_not_prepared_is_named_with_those_that_are(prepared):
    with pytest.raises(UserError, match=r"'tiny:7\.7\.7': version 7\.7\.7 is not .*1\.0\.0"):
        split("tiny:7.7.7", prepared)


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_tfds_is_read_by_index(prepared, cache_bytes, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    train = split("tiny", prepared, cache_bytes=cache_bytes)
    assert (len(train), train.num_classes) == (20, 3)
    values, labels = levels(train, np.arange(20))
    assert sorted(values) == list(range(20))
    assert labels == [value % 3 for value in values]
    again, _ = levels(train, [5, 3, 5])
    assert again == [values[5], values[3], values[5]]
    assert len(split("tiny", prepared, "eval", cache_bytes=cache_bytes)) == 10  # test


def test_tfds_slices(prepared):
    whole, _ = levels(split("tiny", prepared), np.arange(20))
    part = split("tiny", prepared, train_split="train[25%:75%]")
    assert levels(part, np.arange(10))[0] == whole[5:15]
    with pytest.raises(UserError, match=r"config\.data\.eval_split='val': tiny has"):
        split("tiny", prepared, "eval", eval_split="val")
    with pytest.raises(UserError, match=r"config\.data\.train_split='train\[:0\]': there are no"):
        split("tiny", prepared, train_split="train[:0]")


def test_the_offset_index_is_built_once(prepared, monkeypatch, tmp_path):
    if not list(prepared.rglob("*.tfrecord*")):
        pytest.skip("ArrayRecord has its own index")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = levels(split("tiny", prepared, cache_bytes=0), np.arange(20))
    monkeypatch.setattr(tfrecord, "_spans", None)  # a second scan would fail
    assert levels(split("tiny", prepared, cache_bytes=0), np.arange(20)) == first


@pytest.mark.parametrize("harm", ["emptied", "cut short", "a flipped bit"])
def test_a_damaged_offset_index_is_built_again(prepared, monkeypatch, tmp_path, harm):
    if not list(prepared.rglob("*.tfrecord*")):
        pytest.skip("ArrayRecord has its own index")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = levels(split("tiny", prepared, cache_bytes=0), np.arange(20))
    for path in tmp_path.rglob("*.npy"):
        whole = bytearray(path.read_bytes())
        whole[-12] ^= harm == "a flipped bit"
        path.write_bytes({"emptied": b"", "cut short": whole[:-8]}.get(harm, whole))
    assert levels(split("tiny", prepared, cache_bytes=0), np.arange(20)) == first


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_a_truncated_tfrecord_is_named(prepared, monkeypatch, tmp_path, cache_bytes):
    files = list(prepared.rglob("*train.tfrecord*"))
    if not files:
        pytest.skip("ArrayRecord checks itself")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    whole = files[0].read_bytes()
    try:
        files[0].write_bytes(whole[:-7])
        with pytest.raises(FileError, match=r"train\.tfrecord.*damaged"):
            split("tiny", prepared, cache_bytes=cache_bytes)
    finally:
        files[0].write_bytes(whole)

"""Images that can be read: what stands for those that cannot, and which labels are none."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image as Pillow

from simclr_jax.data import folder, images
from simclr_jax.data import readable as wrapper
from simclr_jax.data.readable import Readable
from simclr_jax.errors import UserError
from support import damage
from support.sources import encoded, pixel, readable, said, write


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
    monkeypatch.setattr(wrapper._log, "warning", lambda text, *args: lines.append(text % args))
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


@pytest.mark.parametrize("harm", [damage.remove, damage.zero_the_end])
def test_a_file_that_vanishes_or_rots_after_it_was_read_is_replaced(damaged, harm):
    source = readable(damaged, eval_split="train")
    source.load([0])
    harm(damaged / "0.jpg")
    images, _ = source.load([0])
    assert round(pixel(images[0])[0] / 20) == 1
    assert "0.jpg" in source.in_words(next(iter(source.bad)))


def test_names_cannot_forge_lines_of_the_log(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(wrapper._log, "warning", lambda text, *args: lines.append(text % args))
    write(tmp_path / "a.jpg", encoded("red"))
    write(tmp_path / "b\n\x1b[2Jdone: step 9.jpg", b"x")
    readable(tmp_path, eval_split="train").load([0, 1])
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert "\x1b" not in lines[0]


def test_a_folder_of_nothing_readable_says_so(tmp_path):
    write(tmp_path / "a.jpg", b"x")
    write(tmp_path / "b.jpg", b"y")
    with pytest.raises(UserError, match=r"data\.dir: none of the 2 images can be"), said():
        readable(tmp_path, eval_split="train").load([0])


def test_the_pixels_of_the_first_decoding_are_used_and_the_file_s_bytes_later(tmp_path):
    """Both are the same image; of a large one the pixels are not passed on."""
    noise = Pillow.effect_noise((40, 30), 90).convert("RGB")
    noise.save(tmp_path / "a.jpg")
    Pillow.new("RGB", (600, 500)).save(tmp_path / "b.jpg")
    source = readable(tmp_path, eval_split="train")
    (first, large), _ = source.load([0, 1])
    (later, _), _ = source.load([0, 1])
    assert (first.height, first.width, first.decoded) == (30, 40, True)
    assert (large.height, large.width, large.decoded) == (500, 600, False)
    assert (later.height, later.width, later.decoded) == (30, 40, False)
    np.testing.assert_array_equal(first.pixels(), later.pixels())


def test_what_tensorflow_cannot_decode_becomes_pixels_at_once_or_a_png_where_that_is_too_much(
    tmp_path, monkeypatch
):
    """The small image is converted once each time it is read, not encoded to be decoded again."""
    Pillow.effect_noise((40, 30), 90).convert("RGB").save(tmp_path / "a.webp", lossless=True)
    Pillow.new("RGB", (600, 500)).save(tmp_path / "b.bmp")
    source = readable(tmp_path, eval_split="train")
    expected = np.asarray(Pillow.open(tmp_path / "a.webp"))
    converted, real = [], images._converted
    monkeypatch.setattr(images, "_converted", lambda *args: converted.append(0) or real(*args))
    for times in (2, 4):
        (small, large), _ = source.load([0, 1])
        assert (small.decoded, large.decoded, large.data[1:4]) == (True, False, b"PNG")
        assert len(converted) == times
        np.testing.assert_array_equal(small.pixels(), expected)
    monkeypatch.setattr(wrapper, "_USED_BYTES", 0)
    (small, _), _ = source.load([0, 1])
    assert (small.decoded, small.data[1:4]) == (False, b"PNG")
    np.testing.assert_array_equal(small.pixels(), expected)


@pytest.mark.parametrize("keep_bytes", [2**20, 100])
def test_small_images_of_one_size_are_loaded_once_where_they_may_be_kept(keep_bytes):
    source = Readable(Counting(), on_bad_image="replace", keep_bytes=keep_bytes)
    for _ in range(2):
        pixels, labels = source.load_pixels(np.array([0, 2, 1]))
        assert (pixels.shape, labels.tolist()) == ((3, 10, 12, 3), [-1, 1, 0])
        assert [round(image[0, 0, 0] / 50) for image in pixels] == [0, 2, 1]
    kept, _ = source.load_pixels(np.array([1, 2]))
    assert round(kept[0, 0, 0, 0] / 50) == 1
    assert source.source.loaded == (3 if keep_bytes > 1000 else 3 + 3 + 2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_pixels_that_are_not_kept_are_the_same_each_time(tmp_path, monkeypatch, channels, kind):
    monkeypatch.setattr(wrapper, "_AT_A_TIME", 2)
    for k in range(3):
        noise = Pillow.effect_noise((20, 30), 90).convert("L" if channels == 1 else "RGB")
        noise.save(tmp_path / f"{k}.{kind.lower()}")
    source = Readable(
        folder.Root(str(tmp_path)).open("train"),
        on_bad_image="error",
        channels=channels,
        keep_bytes=0,
    )
    first, again = (source.load_pixels(np.arange(3))[0] for _ in range(2))
    assert first.shape == (3, 30, 20, channels)
    np.testing.assert_array_equal(first, again)


def test_pixels_of_several_sizes_come_one_by_one(tmp_path):
    for name, size in (("a", (10, 10)), ("b", (10, 10)), ("c", (8, 9))):
        write(tmp_path / f"{name}.png", encoded("red", "PNG", size=size))
    source = readable(tmp_path, eval_split="train")
    assert not source.small_of_one_size()
    pixels, _ = source.load_pixels(np.array([2, 0]))
    assert [image.shape for image in pixels] == [(9, 8, 3), (10, 10, 3)]
    pixels, _ = source.load_pixels(np.array([1, 0]))
    assert pixels.shape == (2, 10, 10, 3)


def test_what_stands_for_an_unreadable_image_is_kept_in_its_place(damaged):
    source = readable(damaged, eval_split="train")
    for _ in range(2):
        pixels, _ = source.load_pixels(np.arange(10))
        levels = [round(image[0, 0, 0] / 20) for image in pixels]
        assert levels == [0, 1, 4, 4, 4, 5, 6, 8, 8, 0]
    assert source.readable(np.arange(10)).tolist() == [k not in (2, 3, 7, 9) for k in range(10)]


def test_tensorflow_is_kept_off_all_accelerators(monkeypatch):
    hidden = {}
    monkeypatch.setattr(
        tf.config, "set_visible_devices", lambda devices, kind: hidden.update({kind: devices})
    )
    Readable(Labelled(), on_bad_image="replace")
    assert hidden == {"GPU": [], "TPU": []}


class Labelled:
    """A source with the labels -1 (none) to 3, which is no class."""

    num_classes = 3
    multilabel = False
    split = "unlabelled"
    place = "set"

    def __len__(self):
        return 5

    def name(self, index):
        return f"record {index}"

    def load(self, indices):
        return [encoded("red")] * len(indices), np.array(indices, np.int32) - 1


class Counting(Labelled):
    """The same with a grey for each label, which counts what is loaded."""

    def __init__(self):
        self.loaded = 0

    def load(self, indices):
        self.loaded += len(indices)
        return [encoded((50 * int(k),) * 3) for k in indices], np.array(indices, np.int32) - 1


def test_labels_outside_the_classes_are_named_or_unused():
    with pytest.raises(UserError, match=r"'set/record 4' has the label 3, outside 0 … 2"), said():
        Readable(Labelled(), on_bad_image="replace").load([1, 4])
    assert Readable(Labelled(), on_bad_image="replace").load([0, 1])[1].tolist() == [-1, 0]
    unlabelled = Readable(Labelled(), on_bad_image="replace", labelled=False)
    assert unlabelled.num_classes == 0
    assert unlabelled.load([0, 1])[1].tolist() == [-1, -1]

"""Images that can be read: what stands for those that cannot, and which labels are none."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_jax.data import source as sources
from simclr_jax.data.source import Readable
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
    monkeypatch.setattr(sources._log, "warning", lambda text, *args: lines.append(text % args))
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


def test_labels_outside_the_classes_are_named_or_unused():
    with pytest.raises(UserError, match=r"'set/record 4' has the label 3, outside 0 … 2"), said():
        Readable(Labelled(), on_bad_image="replace").load([1, 4])
    assert Readable(Labelled(), on_bad_image="replace").load([0, 1])[1].tolist() == [-1, 0]
    unlabelled = Readable(Labelled(), on_bad_image="replace", labelled=False)
    assert unlabelled.num_classes == 0
    assert unlabelled.load([0, 1])[1].tolist() == [-1, -1]

"""Storage that is out of reach: what is tried again, what is given up, and what is the data's."""

import errno
import os

import numpy as np
import pytest
import tensorflow as tf

from simclr_jax.data import readable as wrapper
from simclr_jax.data.readable import Readable
from simclr_jax.errors import HostError, UserError
from simclr_jax.store import outage
from simclr_jax.store.outage import patiently
from support.sources import encoded, readable, said, write


@pytest.fixture(autouse=True)
def slept(monkeypatch):
    """The seconds that were waited, as if they had passed."""
    seconds = []
    monkeypatch.setattr(outage.time, "sleep", seconds.append)
    return seconds


def failing(times, error):
    """A read that fails that many times."""
    left = [error] * times

    def read(*_):
        if left:
            raise left.pop()
        return b"content"

    return read


NUMBERS = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EMFILE, errno.EACCES)
OUTAGES = [
    *(OSError(number, os.strerror(number)) for number in NUMBERS),
    tf.errors.UnavailableError(None, None, "gs://bucket/x: HTTP response code 503"),
    tf.errors.PermissionDeniedError(None, None, "gs://bucket/x: HTTP response code 403"),
]


@pytest.mark.parametrize("error", OUTAGES, ids=lambda error: str(error)[-20:])
def test_a_short_outage_is_waited_for_and_a_long_one_is_the_hosts(slept, error):
    assert patiently(failing(3, error), "x") == b"content"
    assert slept == list(outage.DELAYS[:3])
    with pytest.raises(HostError, match=r"^images/x: cannot be read \(.*tried again for"):
        patiently(failing(99, error), "images/x")


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(),
        NotADirectoryError(errno.ENOTDIR, ""),
        tf.errors.NotFoundError(None, None, ""),
        ValueError("a bug"),
    ],
)
def test_what_is_no_outage_is_not_tried_again(slept, error):
    with pytest.raises(type(error)):
        patiently(failing(1, error), "x")
    assert not slept


def test_an_outage_makes_no_bad_image(tmp_path, monkeypatch):
    write(tmp_path / "a.jpg", encoded("red"))
    write(tmp_path / "b.jpg", encoded("blue"))
    found = readable(tmp_path, eval_split="train")
    monkeypatch.setattr("simclr_jax.data.folder._content", failing(99, OUTAGES[0]))
    with pytest.raises(HostError, match=r"[ab]\.jpg: cannot be read"):
        found.load(np.arange(2))
    assert not found.bad


@pytest.mark.parametrize("look", [outage.is_dir, outage.exists])
def test_a_mount_that_is_gone_is_not_taken_for_no_folder(tmp_path, monkeypatch, look):
    assert look(tmp_path)
    assert not look(tmp_path / "none")
    assert not look("a\0b")
    monkeypatch.setattr(outage.os, "stat", failing(99, OUTAGES[2]))
    with pytest.raises(HostError, match="Transport endpoint is not connected"):
        look(tmp_path)


class Rows:
    """Images of which none can be read, for a reason."""

    num_classes, split, place = 0, "train", "/mnt/images"

    def __init__(self, reason):
        self.reason, self.loaded = reason, 0

    def __len__(self):
        return 10_000

    def name(self, index):
        return f"{index}.jpg"

    def load(self, indices):
        self.loaded += len(indices)
        return [self.reason] * len(indices), np.full(len(indices), -1, np.int32)


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("missing", r"^/mnt/images: 1032 images are gone since they were listed"),
        (b"x", r"data\.dir: none of 1001 images from '/mnt/images/0\.jpg' on can be read"),
    ],
)
def test_the_search_for_a_readable_image_is_bounded_and_so_are_its_lines(monkeypatch, reason, line):
    lines = []
    monkeypatch.setattr(wrapper._log, "warning", lambda text, *args: lines.append(text % args))
    rows = Rows(reason)
    with pytest.raises((HostError, UserError), match=line), said():
        Readable(rows, on_bad_image="replace").load(np.arange(32))
    assert rows.loaded == 32 + wrapper.MAX_TRIES
    assert len(lines) == wrapper.NAMED + 1

"""What lies below a folder, on a disk and in a bucket."""

import errno
import logging
import os
import sys
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from etils import epath

from simclr_jax.data import listing
from simclr_jax.data.listing import files_below
from simclr_jax.errors import ArgumentError
from support.sources import encoded, npy, write


def listed(folder):
    with ThreadPoolExecutor(2) as pool:
        return files_below(epath.Path(folder), pool)


def test_files_are_images_by_their_ending_or_their_content(tmp_path):
    names = ("a.JPG", "b.tif", "c.jfif", "d", "e.2021-03-04", "f.unknown")
    for name in names:
        write(tmp_path / name, encoded("red"))
    for name in ("LICENSE", "notes.txt", "labels.csv"):
        write(tmp_path / name, b"no image")
    write(tmp_path / "a.jpg~", encoded("red"))
    write(tmp_path / ".DS_Store", b"x")
    write(tmp_path / "@eaDir" / "a.jpg", encoded("red"))
    os.mkfifo(tmp_path / "pipe.jpg")
    os.symlink("nowhere.jpg", tmp_path / "broken.jpg")
    found = listed(tmp_path)
    assert found.images == list(names)
    assert found.left_out == {
        "without an ending": 1, ".txt": 1, ".csv": 1, "~": 1, "hidden": 1,
        "broken links or no files": 2,
    }  # fmt: skip


def test_arrays_are_images_where_there_are_no_others(tmp_path):
    for name in ("b.npy", "a.NPY"):
        write(tmp_path / name, npy(np.zeros((4, 4))))
    write(tmp_path / "notes.txt", b"no image")
    assert listed(tmp_path).images == ["a.NPY", "b.npy"]
    write(tmp_path / "c.png", encoded("red", "PNG"))
    found = listed(tmp_path)
    assert found.images == ["c.png"]
    assert found.left_out == {".npy": 2, ".txt": 1}


def test_of_a_foreign_ending_some_are_looked_into(tmp_path, monkeypatch):
    for k in range(100):
        write(tmp_path / f"{k:03}.xml", b"<xml/>")
    seen = []
    monkeypatch.setattr(listing, "format_of", seen.append)
    assert listed(tmp_path).left_out == {".xml": 100}
    assert 0 < len(seen) < 20


def test_links_to_folders_are_followed_and_circles_named(tmp_path, caplog):
    write(tmp_path / "real" / "x.jpg", encoded("red"))
    (tmp_path / "data" / "cat").mkdir(parents=True)
    os.symlink(tmp_path / "real", tmp_path / "data" / "dog")
    os.symlink("..", tmp_path / "data" / "cat" / "circle")
    os.symlink("self", tmp_path / "data" / "self")
    with caplog.at_level(logging.WARNING, "simclr_jax"):
        assert listed(tmp_path / "data").images == ["dog/x.jpg"]
    assert "'cat/circle' links to a folder above it" in caplog.text


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    write(tmp_path / "cat" / "x.jpg", encoded("red"))
    real = os.scandir

    def scandir(path):
        if str(path).endswith("cat"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ArgumentError, match=r"cat'?: cannot be read \(Permission denied\)"):
        listed(tmp_path)


def test_a_bucket_is_listed_by_one_call_with_sizes(monkeypatch):
    objects = {"data/": 0, "data/cat/1.jpg": 10, "data/dog/2.jpg": 20, "database/3.jpg": 30}
    calls = []

    class Client:
        def __init__(self, project):
            assert project is None

        def list_blobs(self, bucket, *, prefix, fields):
            calls.append((bucket, prefix, fields))
            return [
                types.SimpleNamespace(name=name, size=size, generation=1)
                for name, size in objects.items()
                if name.startswith(prefix)
            ]

    storage = types.SimpleNamespace(Client=Client)
    auth = types.SimpleNamespace(DefaultCredentialsError=RuntimeError)
    monkeypatch.setitem(sys.modules, "google.cloud.storage", storage)
    monkeypatch.setitem(sys.modules, "google.auth.exceptions", auth)
    found = listed("gs://bucket/data")
    assert found.images == ["cat/1.jpg", "dog/2.jpg"]
    assert found.states == {"cat/1.jpg": (10, 1), "dog/2.jpg": (20, 1)}
    assert [call[:2] for call in calls] == [("bucket", "data/")]
    assert "size" in calls[0][2]


def test_a_bucket_without_its_library_is_slow_and_said_so(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)  # Its import fails.
    monkeypatch.setattr(listing, "_walk", lambda folder: iter(["a.jpg"]))
    with caplog.at_level(logging.WARNING, "simclr_jax"):
        assert listed("gs://bucket/data").images == ["a.jpg"]
    (line,) = caplog.messages
    assert line.startswith("gs://bucket/data: listed a folder at a time")
    assert "'simclr_jax[gcs]'" in line


def test_an_outage_hides_no_image(tmp_path, monkeypatch):
    write(tmp_path / "d", encoded("red"))
    kind, errors = type(epath.Path(tmp_path)), [OSError(errno.EIO, "input/output error")]
    whole = kind.open

    def flaky(path, *args, **kwargs):
        if errors:
            raise errors.pop()
        return whole(path, *args, **kwargs)

    monkeypatch.setattr(kind, "open", flaky)
    monkeypatch.setattr(listing.outage, "DELAYS", (0.0,))
    assert listed(tmp_path).images == ["d"]
    assert not errors


def test_a_folder_that_is_found_twice_is_named(tmp_path, caplog):
    write(tmp_path / "real" / "a.jpg", encoded("red"))
    os.symlink(tmp_path / "real", tmp_path / "latest")
    with caplog.at_level(logging.WARNING, "simclr_jax"):
        assert listed(tmp_path).images == ["latest/a.jpg", "real/a.jpg"]
    assert "are the same folder (1 such by links)" in caplog.text


def test_folders_that_link_to_each_other_are_left_in_the_end(tmp_path, caplog):
    names = "abcdefgh"
    for name in names:
        write(tmp_path / name / "x.jpg", encoded("red"))
        for other in names.replace(name, ""):
            os.symlink(f"../{other}", tmp_path / name / other)
    with caplog.at_level(logging.WARNING, "simclr_jax"):
        found = listed(tmp_path).images
    # A class in each of the first three depths, and below it each of the five others once.
    assert len(found) == 8 + 8 * 7 + 8 * 7 * 6 * (1 + 5)
    assert len(caplog.messages) == 3  # Each kind of link is named once.


def test_a_folder_that_two_classes_or_splits_link_to_counts_in_each(tmp_path):
    write(tmp_path / "real" / "x.jpg", encoded("red"))
    for place in ("data/train/cat", "data/train/dog", "data/val/cat", "data/deep/val/cat"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(tmp_path / "real", tmp_path / place)
    assert len(listed(tmp_path / "data").images) == 4

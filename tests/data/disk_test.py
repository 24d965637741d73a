"""What is kept of a folder's listing, and that no change is missed."""

import collections
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from simclr_jax.data import disk
from simclr_jax.data.fingerprint import cache_key, fingerprint
from support.sources import encoded, split, write


@pytest.fixture(autouse=True)
def kept(monkeypatch, tmp_path):
    """Small folders are kept as well, from the moment on at which they have changed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(disk, "FEW_FILES", 0)
    monkeypatch.setattr(disk, "SETTLED_SECONDS", -1.0)


@pytest.fixture
def data(tmp_path):
    for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg", "b/deep/4.jpg"):
        write(tmp_path / "data" / name, b"x")
    return tmp_path / "data"


@pytest.fixture
def scanned(monkeypatch):
    """The folders that were read from the disk."""
    found, real = [], disk._scan
    monkeypatch.setattr(disk, "_scan", lambda place: found.append(place) or real(place))
    return found


def listed(folder):
    left_out = collections.Counter()
    with ThreadPoolExecutor(2) as pool:
        return sorted(disk.below(str(folder), left_out, pool)), left_out


def test_a_folder_is_read_once_and_again_where_it_has_changed(data, scanned):
    os.mkfifo(data / "b/pipe")
    first = listed(data)
    assert first[0] == ["a/1.jpg", "a/2.jpg", "b/3.jpg", "b/deep/4.jpg"]
    assert first[1] == {"broken links or no files": 1}
    assert len(scanned) == 4
    scanned.clear()
    assert listed(data) == first
    assert scanned == []
    write(data / "b/5.jpg", b"x")
    (data / "a/1.jpg").unlink()
    assert listed(data)[0] == ["a/2.jpg", "b/3.jpg", "b/5.jpg", "b/deep/4.jpg"]
    assert sorted(scanned) == [str(data / "a"), str(data / "b")]


def test_a_copy_that_sets_the_old_time_is_seen(data, scanned):
    before, times = listed(data), os.stat(data / "a")
    write(data / "a/0.jpg", b"x")
    os.utime(data / "a", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert listed(data)[0] == ["a/0.jpg", *before[0]]


def test_a_folder_that_has_just_changed_or_has_links_is_read_again(data, scanned, monkeypatch):
    os.symlink(data / "a/1.jpg", data / "b/link.jpg")
    assert "b/link.jpg" in listed(data)[0]
    scanned.clear()
    (data / "a/1.jpg").unlink()  # The link is broken, and its folder's times are the same.
    assert "b/link.jpg" not in listed(data)[0]
    assert sorted(scanned) == [str(data / "a"), str(data / "b")]
    monkeypatch.setattr(disk, "SETTLED_SECONDS", 60.0)
    write(data / "c/6.jpg", b"x")
    for _ in range(2):
        scanned.clear()
        listed(data)
        assert str(data / "c") in scanned


@pytest.mark.parametrize("damage", [b"", b"no zlib", None])
def test_a_damaged_or_missing_cache_is_made_anew(data, tmp_path, damage, monkeypatch):
    expected = listed(data)
    (path,) = (tmp_path / "cache").rglob("*.json.z")
    if damage is None:
        monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    else:
        path.write_bytes(damage)
    assert listed(data) == expected


def test_a_file_system_whose_folders_keep_their_times_is_not_trusted(data, scanned, monkeypatch):
    monkeypatch.setattr(disk, "_file_system", lambda root: "fuse.gcsfuse")
    listed(data)
    listed(data)
    assert len(scanned) == 8


def test_a_file_that_is_written_again_in_its_place_changes_the_fingerprint(tmp_path):
    """The sizes are asked for each time, for the folder's times do not tell."""
    for name in ("a/1.png", "b/2.png"):
        write(tmp_path / "data" / name, encoded("red", "PNG"))
    options = {"eval_split": "train"}
    before = split("folder", tmp_path / "data", **options)
    prints, key = fingerprint(before), cache_key(before)
    state = os.stat(tmp_path / "data/a")
    with (tmp_path / "data/a/1.png").open("ab") as file:
        file.write(b"x")
    assert os.stat(tmp_path / "data/a").st_mtime_ns == state.st_mtime_ns
    after = split("folder", tmp_path / "data", **options)
    assert fingerprint(after)["sizes"] != prints["sizes"]
    assert cache_key(after) != key

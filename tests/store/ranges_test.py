"""Ranges of files: exact ones, on a disk and in a bucket, whatever becomes of either."""

import errno
import functools
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from simclr_jax.errors import HostError
from simclr_jax.store import outage, ranges
from support.bucket import Bucket, asked_for_ranges, serve

DATA = bytes(range(256)) * 16


@pytest.fixture
def bucket(monkeypatch):
    """gs://bucket, as Google's JSON interface."""
    with asked_for_ranges(monkeypatch) as bucket:
        yield bucket


@pytest.fixture(params=["disk", "bucket"])
def place(request, tmp_path):
    """A function from a name and a content to the path of a file that has it."""

    def on_disk(name, data):
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    def in_bucket(name, data):
        request.getfixturevalue("bucket").put(f"a b/{name}", data)
        return f"gs://bucket/a b/{name}"

    if request.param == "bucket":
        request.getfixturevalue("bucket")
        return in_bucket
    return on_disk


def test_a_range_is_what_lies_there_and_less_at_the_end(place):
    path = place("x", DATA)
    for start, size in ((0, 1), (17, 300), (0, len(DATA)), (4000, 1000), (len(DATA), 5), (9, 0)):
        assert ranges.read(path, start, size) == DATA[start : start + size]


def test_a_file_that_is_not_there_is_missing(place):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - is_missing tells which.
        ranges.read(place("x", DATA) + "y", 0, 1)
    assert outage.is_missing(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts what a process reads")
def test_no_more_is_read_of_a_disk_than_is_asked_for(tmp_path):
    def read_so_far():
        with open("/proc/self/io") as file:
            return int(file.readline().split()[1])

    (tmp_path / "x").write_bytes(bytes(2**20))
    ranges.read(str(tmp_path / "x"), 0, 1)
    before = read_so_far()
    own = read_so_far() - before
    before = read_so_far()
    for start in range(0, 2**20, 2**16):
        ranges.read(str(tmp_path / "x"), start, 100)
    assert read_so_far() - before - own == 16 * 100


def test_few_files_stay_open_and_threads_do_not_close_each_others(tmp_path, monkeypatch):
    monkeypatch.setattr(ranges, "_descriptor", functools.lru_cache(2)(ranges._Descriptor))
    paths = [str(tmp_path / str(number)) for number in range(20)]
    for number, path in enumerate(paths):
        with open(path, "wb") as file:
            file.write(bytes([number]) * 9)
    before = len(os.listdir("/dev/fd"))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda path: ranges.read(path, 3, 4), paths * 50))
    assert found == [bytes([number]) * 4 for number in range(20)] * 50
    assert len(os.listdir("/dev/fd")) <= before + 2


def test_a_mount_that_comes_back_is_opened_again(tmp_path, monkeypatch):
    path, read, opened = tmp_path / "x", os.pread, os.open
    path.write_bytes(DATA)
    assert ranges.read(str(path), 0, 4) == DATA[:4]
    failures, paths = [OSError(errno.ESTALE, "stale")], []

    def pread(*arguments):
        if failures:
            raise failures.pop()
        return read(*arguments)

    monkeypatch.setattr(ranges.os, "pread", pread)
    monkeypatch.setattr(ranges.os, "open", lambda *a: paths.append(a[0]) or opened(*a))
    monkeypatch.setattr(outage.time, "sleep", lambda seconds: None)
    assert outage.patiently(lambda: ranges.read(str(path), 0, 4), path) == DATA[:4]
    assert paths == [str(path)]


def test_a_read_that_is_cut_short_is_continued(tmp_path, monkeypatch):
    read = os.pread
    monkeypatch.setattr(ranges.os, "pread", lambda file, n, at: read(file, min(n, 7), at))
    (tmp_path / "x").write_bytes(DATA)
    assert ranges.read(str(tmp_path / "x"), 5, 100) == DATA[5:105]


def test_a_bucket_that_refuses_is_asked_again_and_given_up(bucket, monkeypatch):
    monkeypatch.setattr(outage.time, "sleep", lambda seconds: None)
    bucket.put("x", DATA)
    bucket.refusals = [429, 503]
    assert outage.patiently(lambda: ranges.read("gs://bucket/x", 1, 2), "x") == DATA[1:3]
    bucket.refusals = [503] * 99
    with pytest.raises(HostError, match=r"cannot be read \(the bucket answers with status 503"):
        outage.patiently(lambda: ranges.read("gs://bucket/x", 1, 2), "x")


def test_a_server_that_sends_all_is_no_damage(bucket):
    bucket.put("x", DATA)
    bucket.whole = True
    assert ranges.read("gs://bucket/x", 5, 7) == DATA[5:12]


def test_without_the_client_blocks_are_read_and_it_is_said_once(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "google.auth", None)
    ranges._of_google.cache_clear()
    with caplog.at_level("WARNING"):
        found = [ranges.storage_of(path) for path in ("gs://bucket/x", "gs://bucket/y", "/x")]
    ranges._of_google.cache_clear()
    assert found == [ranges.BLOCKS, ranges.BLOCKS, ranges.DISK]
    (line,) = caplog.messages
    assert "pip install 'simclr_jax[gcs]'" in line


def test_googles_client_reads_ranges_with_the_credentials_of_the_machine(monkeypatch):
    pytest.importorskip("google.auth")
    bucket = Bucket()
    address, stop = serve(bucket)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
    ranges._of_google.cache_clear()
    bucket.put("a/b%c", DATA)
    try:
        assert ranges.storage_of("gs://bucket/a/b%c") == ranges.BUCKET
        assert ranges.read("gs://bucket/a/b%c", 9, 9) == DATA[9:18]
    finally:
        ranges._of_google.cache_clear()
        stop()

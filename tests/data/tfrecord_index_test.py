"""Where the records of TFRecord files begin: what finding it reads, and where it is kept."""

import struct
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tensorflow as tf
from etils.epath import backend

from simclr_jax import processes
from simclr_jax.data import tfrecord_index
from simclr_jax.data.tfrecord import TFRecordReader
from simclr_jax.errors import FileError
from support.bucket import Backend, Bucket, asked_for_ranges

LONG = [40_000, 70_000, 1, 90_000, 120_000, 33_000]  # Lengths of records, in bytes.


def records(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.bytes(length) for length in lengths]


def file_of(folder, contents):
    """The bytes of a TFRecord file."""
    path = str(folder / "x.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for content in contents:
            writer.write(content)
    with open(path, "rb") as file:
        return file.read()


def instruction(path, count):
    """What TFDS says of a file that belongs to a split as a whole."""
    return SimpleNamespace(filename=path, skip=0, take=-1, examples_in_shard=count)


@pytest.fixture
def place(monkeypatch, tmp_path):
    """A function that puts files into gs://bucket and opens them; its `bucket`, and the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with asked_for_ranges(monkeypatch) as bucket:
        stat_on_disk = tf.io.gfile.stat

        def stat(path):
            if not path.startswith("gs://"):
                return stat_on_disk(path)
            data, generation = bucket.objects[path.removeprefix("gs://bucket/")]
            return SimpleNamespace(length=len(data), mtime_nsec=generation)

        monkeypatch.setattr("tensorflow.io.gfile.stat", stat)
        counts = {}

        def put(name, contents):
            bucket.put(name, file_of(tmp_path, contents))
            counts[name] = len(contents)

        def opened(**kwargs):
            files = [instruction(f"gs://bucket/{name}", n) for name, n in counts.items()]
            return TFRecordReader(files, cache_bytes=0, **kwargs)

        yield SimpleNamespace(bucket=bucket, put=put, opened=opened)


def test_of_long_records_in_a_bucket_the_headers_alone_are_read_and_only_once(place):
    contents = records(LONG)
    place.put("a", contents)
    place.put("b", contents[::-1])
    reader = place.opened()
    assert len(place.bucket.asked) == 2 * len(LONG)
    assert {end - first for _, first, end in place.bucket.asked} == {12}
    assert reader.__getitems__(range(12)) == contents + contents[::-1]
    place.bucket.asked.clear()
    assert len(place.opened()) == 12
    assert place.bucket.asked == []


def test_of_short_records_many_headers_are_read_at_once(place):
    contents = records([2000] * 1000)
    place.put("a", contents)
    reader = place.opened()
    assert len(place.bucket.asked) <= 2 + 1000 * 2016 / 2**18
    assert reader.__getitems__([999, 0, 500]) == [contents[999], contents[0], contents[500]]


@pytest.mark.parametrize("lengths", [LONG, [100] * 5000, [100, 200_000] * 20, [0], [0, 0, 7]])
def test_the_positions_are_those_of_the_whole_file(place, tmp_path, lengths):
    contents = records(lengths)
    place.put("a", contents)
    (tmp_path / "on_disk").write_bytes(place.bucket.objects["a"][0])
    on_disk = [instruction(str(tmp_path / "on_disk"), len(contents))]
    in_memory = TFRecordReader(on_disk, cache_bytes=2**30)
    for reader in (place.opened(), TFRecordReader(on_disk, cache_bytes=0)):
        np.testing.assert_array_equal(reader._spans, in_memory._spans)
        assert reader.__getitems__(range(len(contents))) == contents


def test_neighbours_are_read_in_one_request(place):
    """So are records with a short one between them, in whatever order they are asked for."""
    contents = records([120_000] * 40)
    place.put("a", contents[:20])
    place.put("b", contents[20:])
    reader = place.opened()
    place.bucket.asked.clear()
    wanted = [5, 3, 4, 3, 7, 15, 20, 21, 19]
    assert reader.__getitems__(wanted) == [contents[number] for number in wanted]
    runs = [(name, round((end - first) / 120_000)) for name, first, end in place.bucket.asked]
    assert sorted(runs) == [("a", 1), ("a", 1), ("a", 5), ("b", 2)]


def test_on_a_disk_a_run_is_of_neighbours_alone_and_not_longer_than_half_a_mib(
    place, tmp_path, monkeypatch
):
    contents = records([100_000] * 60)
    path = tmp_path / "on_disk"
    path.write_bytes(file_of(tmp_path, contents))
    reader = TFRecordReader([instruction(str(path), 60)], cache_bytes=0)
    asked, read = [], tfrecord_index.ranges.read
    monkeypatch.setattr(
        "simclr_jax.store.ranges.read", lambda *of: asked.append(of[2]) or read(*of)
    )
    assert reader.__getitems__(range(60)) == contents
    assert len(asked) == 12
    assert max(asked) <= 2**19
    asked.clear()
    assert reader.__getitems__([4, 6]) == [contents[4], contents[6]]
    assert asked == [100_004, 100_004]


def test_damage_within_a_run_concerns_its_record_alone(place):
    contents = records([1000] * 8)
    place.put("a", contents)
    reader = place.opened()
    data = bytearray(place.bucket.objects["a"][0])
    data[3 * 1016 + 500] ^= 1
    place.bucket.put("a", data)
    found = reader.__getitems__(range(8))
    assert "checksum does not match, at byte 3060 of gs://bucket/a" in found[3]
    assert found[:3] + found[4:] == contents[:3] + contents[4:]


def test_a_length_that_leads_beyond_the_file_is_named(place):
    place.put("a", records(LONG))
    data = bytearray(place.bucket.objects["a"][0])
    data[:8] = struct.pack("<Q", 2**60)
    place.bucket.put("a", data)
    with pytest.raises(FileError, match="gs://bucket/a: the record at byte 0 is damaged"):
        place.opened()


def test_an_index_in_a_bucket_is_found_by_another_machine(place, monkeypatch, tmp_path):
    storage = Bucket()
    monkeypatch.setattr(backend, "tf_backend", Backend(storage))
    contents = records(LONG)
    place.put("a", contents)
    place.opened(index_dir="gs://bucket/run/tfrecord_index")
    assert len(storage.below("run/tfrecord_index")) == 1
    place.bucket.asked.clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    monkeypatch.chdir(tmp_path)
    reader = place.opened(index_dir="gs://bucket/run/tfrecord_index")
    assert place.bucket.asked == []
    assert reader.__getitems__([4]) == [contents[4]]


@pytest.mark.parametrize("process", [0, 1, 2])
def test_each_of_several_processes_begins_with_files_of_its_own(place, monkeypatch, process):
    monkeypatch.setattr(backend, "tf_backend", Backend(Bucket()))
    monkeypatch.setattr(processes, "several", lambda: True)
    monkeypatch.setattr(jax, "process_index", lambda: process)
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(
        tfrecord_index.ranges, "BUCKET", tfrecord_index.ranges.BUCKET._replace(threads=1)
    )
    contents = records([40_000] * 7)
    for number, content in enumerate(contents):
        place.put(str(number), [content])
    reader = place.opened(index_dir="gs://bucket/index")
    names = [int(name) for name, *_ in place.bucket.asked]
    assert sorted(names) == list(range(7))
    own = len(range(process, 7, 3))
    assert names[:own] == list(range(process, 7, 3))
    assert reader.__getitems__(range(7)) == contents


def test_indexing_that_takes_long_says_how_far_it_is(place, monkeypatch, capsys):
    place.put("a", records(LONG))
    place.put("b", records(LONG))
    place.opened(index_dir=None)
    assert "indexing" not in capsys.readouterr().out
    monkeypatch.setattr(tfrecord_index, "_SAID_SECONDS", 0.0)
    place.opened()
    assert capsys.readouterr().out.splitlines()[-1] == "indexing TFRecord files: 2 of 2"


def test_a_file_that_is_gone_from_the_bucket_is_missing(place):
    place.put("a", records(LONG))
    reader = place.opened()
    del place.bucket.objects["a"]
    assert reader.__getitems__([0, 1, 5]) == ["missing"] * 3

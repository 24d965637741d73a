"""Files whole or not at all, on a disk and in a bucket; and a run that lives in a bucket."""

import errno
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from etils.epath import backend, gpath
from orbax.checkpoint._src.path import gcs_utils
from PIL import Image

from simclr_jax import eval as evaluation
from simclr_jax import train
from simclr_jax.store import files
from simclr_jax.store.rows import MetricsFile, read_rows
from support.bucket import Backend, Bucket, serve
from support.runs import SMALL, status_of


@pytest.fixture
def bucket(monkeypatch):
    """gs://bucket, for etils and for Orbax."""
    bucket = Bucket()
    address, shutdown = serve(bucket)
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", address)
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "anyone")
    monkeypatch.setitem(sys.modules, "google.cloud.storage", sys)  # its being there is all we ask
    storage = Backend(bucket)
    monkeypatch.setattr(backend, "tf_backend", storage)
    monkeypatch.setattr(gpath, "_GCS_BACKENDS", {storage})  # both ends of a copy ask this
    # Orbax asks Google's client, which has no address to be given, whether it has real folders.
    monkeypatch.setattr(gcs_utils, "is_hierarchical_namespace_enabled", lambda path: False)
    yield bucket
    shutdown()


def on_disk(folder):
    """{path: content} of every file below a folder."""
    found = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture(params=["disk", "bucket"])
def place(request, tmp_path):
    """An empty folder on a disk or in a bucket, and what reads all that is in it."""
    if request.param == "disk":
        return epath.Path(tmp_path), lambda: on_disk(tmp_path)
    bucket = request.getfixturevalue("bucket")

    def in_bucket():
        return {name.removeprefix("a/"): data for name, (data, _) in bucket.objects.items()}

    return epath.Path("gs://bucket/a"), in_bucket


def test_a_text_has_replacement_characters_for_names_that_are_not_utf_8(tmp_path):
    files.write_text(tmp_path / "page.html", f"é {os.fsdecode(bytes([0xE9]))}.jpg")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "é \ufffd.jpg"


def test_what_is_written_replaces_what_was_there(place):
    folder, content = place
    for text in (b"the first", b"2"):
        files.write(folder / "file", text)
        assert content() == {"file": text}


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch):
    """The disk takes the first bytes, and has no room when they are to be kept."""
    files.write(tmp_path / "file", b"old")

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    for name in ("file", "another"):
        with pytest.raises(OSError, match="No space left"):
            files.write(tmp_path / name, b"new")
    assert on_disk(tmp_path) == {"file": b"old"}


def test_several_files_and_a_folder_take_their_places_when_all_are_there(place):
    folder, content = place
    files.write(folder / "a", b"old")
    with files.replacing(folder / "a", folder / "b", folder / "below") as (a, b, below):
        a.write_bytes(b"new a")
        b.write_bytes(b"new b")
        (below / "c").mkdir(parents=True)
        (below / "c/d").write_bytes(b"d")
        (below / "e").write_bytes(b"e")
        there = content()
        assert there["a"] == b"old"
        assert not {"b", "below/c/d", "below/e"} & set(there)
    assert content() == {"a": b"new a", "b": b"new b", "below/c/d": b"d", "below/e": b"e"}


def interrupted(folder):
    with files.replacing(folder / "a", folder / "b", folder / "below") as (a, _, below):
        a.write_bytes(b"new")
        below.mkdir()
        (below / "c").write_bytes(b"c")
        raise KeyError("half way")


def test_nothing_is_left_of_what_an_error_interrupts(place, tmp_path_factory, monkeypatch):
    """At the places or, for a bucket, where its files are put together."""
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(files.tempfile, "tempdir", str(temporary))
    folder, content = place
    files.write(folder / "a", b"old")
    with pytest.raises(KeyError, match="half way"):
        interrupted(folder)
    assert content() == {"a": b"old"}
    assert list(temporary.iterdir()) == []


def move_in(folder):
    with files.replacing(folder) as (unfinished,):
        unfinished.mkdir()
        (unfinished / "ours").write_bytes(b"ours")


def test_a_folder_takes_an_empty_ones_place_and_no_others(tmp_path):
    (tmp_path / "empty").mkdir()
    move_in(tmp_path / "empty")
    files.write(tmp_path / "empty/theirs", b"theirs")
    with pytest.raises(OSError, match="not empty"):
        move_in(tmp_path / "empty")
    assert on_disk(tmp_path) == {"empty/ours": b"ours", "empty/theirs": b"theirs"}


@pytest.mark.slow
def test_images_runs_and_evaluations_live_in_a_bucket(bucket, rng, capsys):
    """Train on a folder there, resume, evaluate, embed: nothing is written elsewhere."""
    for index in range(40):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(file, "PNG")
        bucket.put(f"photos/{index % 2}/{index}.png", file.getvalue())
    run = [
        "--config=folder", *SMALL, "--config.data.dir=gs://bucket/photos",
        "--config.eval.batch_size=16", "--config.checkpoint.every_steps=2",
        "--config.train.steps=4", "--config.log.tensorboard=true", "--workdir=gs://bucket/run",
    ]  # fmt: skip
    assert status_of(train.main, *run) == 0
    assert {"run/config.json", "run/metrics.jsonl"} <= set(bucket.objects)
    events = [name for name in bucket.objects if name.startswith("run/tensorboard/events")]
    assert len(bucket.objects[events[0]][0]) > 1000
    whole = [row["loss"] for row in read_rows("gs://bucket/run/metrics.jsonl")]

    epath.Path("gs://bucket/run/checkpoints/4").rmtree()
    assert status_of(train.main, *run) == 0
    assert "resumed from step 2" in capsys.readouterr().out
    assert [row["loss"] for row in read_rows("gs://bucket/run/metrics.jsonl")] == whole

    for protocol in ("knn", "embed"):
        flags = [f"--config=eval/{protocol}", "--run=gs://bucket/run"]
        assert status_of(evaluation.main, *flags) == 0
        assert json.loads(bucket.objects[f"run/eval/{protocol}/4/h,folder/result.json"][0])
    assert len(bucket.objects["run/eval/results.jsonl"][0].splitlines()) == 2
    archive = io.BytesIO(bucket.objects["run/eval/embed/4/h,folder/features.npz"][0])
    assert len(np.load(archive)["features"]) == 40


def test_a_file_that_grows_is_uploaded_whole_and_not_at_every_write(bucket, monkeypatch):
    monkeypatch.setattr(files, "UPLOAD_SECONDS", 3600.0)
    file = MetricsFile("gs://bucket/metrics.jsonl", last_step=0)
    for step in (1, 2, 3):
        file.write({"step": step})
    assert len(read_rows("gs://bucket/metrics.jsonl")) == 1  # the first goes up at once
    file.flush()
    file.close()
    again = MetricsFile("gs://bucket/metrics.jsonl", last_step=2)
    again.write({"step": 3, "again": True})
    again.close()
    rows = read_rows("gs://bucket/metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[2]["again"]


def test_rows_beyond_the_checkpoint_leave_the_bucket_too(bucket):
    bucket.put("metrics.jsonl", b'{"step": 1}\n{"step": 2}\n{"st')
    MetricsFile("gs://bucket/metrics.jsonl", last_step=1).close()
    assert bucket.objects["metrics.jsonl"][0] == b'{"step": 1}\n'


def test_a_bucket_without_googles_client_is_a_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)
    flags = ["--config=digits", "--workdir=gs://bucket/run"]
    assert status_of(train.main, *flags) == 3
    assert "pip install 'simclr_jax[gcs]'" in capsys.readouterr().err

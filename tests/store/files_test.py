"""Runs and images in a bucket: the whole of it, against one in memory."""

import io
import json
import sys

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


def status_of(main, *argv):
    with pytest.raises(SystemExit) as status:
        main([*argv])
    return status.value.code


@pytest.mark.slow
def test_images_runs_and_evaluations_live_in_a_bucket(bucket, rng, capsys):
    """Train on a folder there, resume, evaluate, embed: nothing is written elsewhere."""
    for index in range(40):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(file, "PNG")
        bucket.put(f"photos/{index % 2}/{index}.png", file.getvalue())
    run = [
        "--config=configs/folder.py", "--config.data.dir=gs://bucket/photos",
        "--config.data.image_size=8", "--config.model.depth=10", "--config.model.width=0.0625",
        "--config.train.batch_size=16", "--config.checkpoint.every_steps=2",
        "--config.train.steps=4", "--config.log.every_steps=1", "--workdir=gs://bucket/run",
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
        flags = [f"--config=configs/eval/{protocol}.py", "--run=gs://bucket/run"]
        assert status_of(evaluation.main, *flags) == 0
        assert json.loads(bucket.objects[f"run/eval/{protocol}/4/result.json"][0])
    archive = io.BytesIO(bucket.objects["run/eval/embed/4/features.npz"][0])
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
    flags = ["--config=configs/digits.py", "--workdir=gs://bucket/run"]
    assert status_of(train.main, *flags) == 3
    assert "pip install 'simclr_jax[gcs]'" in capsys.readouterr().err

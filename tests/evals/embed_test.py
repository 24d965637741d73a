"""Embedding: a row an image, named, in both files, whatever the images."""

import json
import zipfile
from pathlib import Path

import chex
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from simclr_jax import eval as evaluation
from simclr_jax.evals import embed as embedding
from simclr_jax.evals import features
from simclr_jax.evals.embed import write_features
from simclr_jax.evals.parquet import Rows
from support.runs import status_of


def embed(workdir, *argv, what="h,digits"):
    assert status_of(evaluation.main, "--config=eval/embed", f"--run={workdir}", *argv) == 0
    folder = next((workdir / "eval/embed/8").glob(what))
    found = json.loads((folder / "result.json").read_text())
    archive, table = map(Path, found["files"])
    with np.load(archive, allow_pickle=False) as arrays:
        return found, dict(arrays), pq.read_table(table)


def test_both_files_hold_every_image_of_both_splits(finished, capsys):
    found, arrays, table = embed(finished)
    assert (found["num_examples"], found["dim"], found["unreadable"]) == (1797, 32, 0)
    chex.assert_shape(arrays["features"], (1797, 32))
    chex.assert_type(arrays["features"], np.float32)
    columns = {name: table.column(name).to_pylist() for name in ("split", "name", "label")}
    for name, column in columns.items():
        assert column == arrays[name].tolist()
    np.testing.assert_array_equal(
        np.array(table.column("features").to_pylist()), arrays["features"]
    )
    assert columns["split"] == ["train"] * 1437 + ["eval"] * 360
    assert columns["name"][1437] == "test/0"
    assert "1797/1797, " in capsys.readouterr().err


def test_features_are_those_that_evaluation_uses(finished):
    argv = ("--config.embed.split=eval", "--config.features.layer=head1")
    _, arrays, _ = embed(finished, *argv, what="head1,digits,split=eval")
    flags = ["--config=eval/knn", f"--run={finished}", "--config.features.layer=head1"]
    assert status_of(evaluation.main, *flags) == 0
    cached = [np.load(path) for path in (finished / "eval" / "features").glob("*.npy")]
    assert any(np.array_equal(arrays["features"], x) for x in cached)


def test_a_flat_folder_is_embedded_whole_but_for_what_cannot_be_read(finished, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("b ü.png", "a.jpg", "d.png"):
        Image.fromarray(rng.integers(0, 255, (9, 7, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "c.jpg").write_bytes(b"not an image")
    folder = ("--config.data.name=folder", f"--config.data.dir={tmp_path}")
    found, arrays, table = embed(finished, *folder, what="h,folder,*")
    assert (found["num_examples"], found["unreadable"]) == (3, 1)
    assert arrays["name"].tolist() == ["a.jpg", "b ü.png", "d.png"]
    assert set(arrays) == {"split", "name", "features"}  # there are no labels
    assert table.column_names == ["split", "name", "features"]
    assert len(np.unique(arrays["features"], axis=0)) == 3  # no image stands for another


@pytest.mark.parametrize("torn", [0, 2])
def test_a_batch_of_which_no_image_can_be_read_is_counted_and_has_no_row(tmp_path, torn):
    class Extractor:
        """Three batches of two images; of one none can be read."""

        def batches(self, source):
            for batch in range(3):
                x = np.full((2, 4), batch, np.float32)
                yield features.Features(x, np.zeros(2, np.int32)), np.full(2, batch != torn)

    class Source:
        num_classes = 0

        def __len__(self):
            return 6

        def name(self, index):
            return f"{index}.jpg"

    found = write_features(Extractor(), {"train": Source()}, tmp_path)
    assert (found["num_examples"], found["unreadable"]) == (4, 2)
    names = [f"{k}.jpg" for k in range(6) if k // 2 != torn]
    assert pq.read_table(tmp_path / "features.parquet")["name"].to_pylist() == names
    assert np.load(tmp_path / "features.npz")["name"].tolist() == names


def test_names_of_any_length_fit(tmp_path, monkeypatch):
    """A .npz entry of 2 GiB and more, as all names together may have; here of more than 100 B."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    monkeypatch.setattr(embedding, "CHUNK", 2)
    names = ["a", "é" * 90, "b/c.png", "d\n", "\ufffd"]
    x = np.arange(15, dtype=np.float32).reshape(5, 3)
    with (tmp_path / "a.npz").open("wb") as file:
        archive = embedding.Archive(file, labelled=True)
        for rows in (slice(0, 3), slice(3, 5)):
            archive.write(Rows("train", names[rows], np.arange(5)[rows], x[rows]))
        archive.close()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["name"].tolist() == names
        assert arrays["name"].dtype == "<U90"
        assert arrays["split"].tolist() == ["train"] * 5
        assert (arrays["label"].tolist(), arrays["label"].dtype) == ([0, 1, 2, 3, 4], np.int32)
        np.testing.assert_array_equal(arrays["features"], x)


def test_files_go_where_they_are_asked_to(finished, tmp_path):
    argv = (f"--config.embed.dir={tmp_path}/out", "--config.embed.split=train")
    embed(finished, *argv, what="h,digits,dir=*,split=train")
    with np.load(tmp_path / "out" / "features.npz") as arrays:
        chex.assert_shape(arrays["features"], (1437, 32))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "features.npz", "features.parquet",
    ]  # fmt: skip


def test_features_in_float16_are_half_the_size_in_both_files(finished):
    argv = ("--config.features.dtype=float16", "--config.embed.split=eval")
    _, arrays, table = embed(finished, *argv, what="h,digits,*float16*")
    assert arrays["features"].dtype == np.float16
    assert table.schema.field("features").type.value_type == pa.float16()
    np.testing.assert_array_equal(
        np.array(table.column("features").to_pylist(), np.float16), arrays["features"]
    )

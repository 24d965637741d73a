"""Embedding: a row an image, named, in both files, whatever the images."""

import chex
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from simclr_jax import eval as evaluation
from support.runs import result, status_of


def embed(workdir, *argv):
    assert status_of(evaluation.main, "--config=eval/embed", f"--run={workdir}", *argv) == 0
    folder = workdir / "eval" / "embed" / "8"
    with np.load(folder / "features.npz", allow_pickle=False) as arrays:
        return result(workdir, "embed", 8), dict(arrays), pq.read_table(folder / "features.parquet")


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
    _, arrays, _ = embed(finished, "--config.embed.split=eval", "--config.features.layer=head1")
    flags = ["--config=eval/knn", f"--run={finished}", "--config.features.layer=head1"]
    assert status_of(evaluation.main, *flags) == 0
    cached = [np.load(path)["x"] for path in (finished / "eval" / "features").glob("*.npz")]
    assert any(np.array_equal(arrays["features"], x) for x in cached)


def test_a_flat_folder_is_embedded_whole_but_for_what_cannot_be_read(finished, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("b ü.png", "a.jpg", "d.png"):
        Image.fromarray(rng.integers(0, 255, (9, 7, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "c.jpg").write_bytes(b"not an image")
    folder = ("--config.data.name=folder", f"--config.data.dir={tmp_path}")
    found, arrays, table = embed(finished, *folder)
    assert (found["num_examples"], found["unreadable"]) == (3, 1)
    assert arrays["name"].tolist() == ["a.jpg", "b ü.png", "d.png"]
    assert set(arrays) == {"split", "name", "features"}  # there are no labels
    assert table.column_names == ["split", "name", "features"]
    assert len(np.unique(arrays["features"], axis=0)) == 3  # no image stands for another


def test_files_go_where_they_are_asked_to(finished, tmp_path):
    embed(finished, f"--config.embed.dir={tmp_path}/out", "--config.embed.split=train")
    with np.load(tmp_path / "out" / "features.npz") as arrays:
        chex.assert_shape(arrays["features"], (1437, 32))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "features.npz", "features.parquet",
    ]  # fmt: skip

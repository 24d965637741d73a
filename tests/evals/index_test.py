"""An index is found, belongs to its run, and is mapped as it was written."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from simclr_jax.errors import UserError
from simclr_jax.evals import index as indices
from simclr_jax.evals import stored
from simclr_jax.store import checkpoint


@pytest.fixture
def copied(indexed, tmp_path):
    """A copy of the index, away from the run."""
    (place,) = (indexed[0] / "eval/embed/8").iterdir()
    return shutil.copytree(place, tmp_path / "index")


def changed(place, **entries):
    path = place / "result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"of": result["of"] | entries.pop("of", {})} | entries))


def test_the_newest_index_of_a_run_is_found_and_mapped(indexed):
    found, others = indices.find(indexed[0], None)
    assert (found.step, others, found.x.shape) == (8, 0, (12, 32))
    with np.load(found.folder / "features.npz") as arrays:
        np.testing.assert_array_equal(found.x, arrays["features"])
        assert [found.name(row) for row in range(12)] == arrays["name"].tolist()
        assert [found.label(row) for row in range(12)] == arrays["label"].tolist()
    assert isinstance(found.x, np.memmap)


def test_of_several_the_newest_step_is_taken_and_the_others_are_counted(indexed, tmp_path):
    run = tmp_path / "run"
    (place,) = (indexed[0] / "eval/embed/8").iterdir()
    for step, name in ((8, "a"), (8, "b"), (4, "c")):
        folder = shutil.copytree(place, run / "eval/embed" / str(step) / name)
        changed(folder, checkpoint_step=step)
    (run / "eval/embed/8/b/features.npz").touch()
    untrained = shutil.copytree(place, run / "eval/embed/untrained/d")
    changed(untrained, untrained=True, checkpoint_step=0)
    found, others = indices.find(run, None)
    assert (found.folder.name, others) == ("b", 2)


def test_files_that_a_key_has_put_elsewhere_are_known_by_the_result_in_the_run(indexed, tmp_path):
    run = shutil.copytree(indexed[0] / "eval", tmp_path / "run/eval").parent
    (place,) = (run / "eval/embed/8").iterdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("features.npz", "features.parquet"):
        (place / name).rename(elsewhere / name)
    changed(place, files=[str(elsewhere / "features.npz")])
    for folder in (None, str(elsewhere)):
        assert indices.find(run, folder)[0].step == 8
    (place / "result.json").unlink()
    with pytest.raises(UserError, match="nothing tells which network"):
        indices.find(run, str(elsewhere))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"of": {"weights": "ab"}}, "other weights"),
        ({"of": {"view": {"image_size": 16}}}, "other views"),
        ({"checkpoint_step": 5}, "is of checkpoint 5, and .* has 4, 8"),
        ({"checkpoint_step": 4}, "other weights"),
        ({"untrained": True}, "untrained"),
        ({"of": {"config": None}}, "another version"),
    ],
)
def test_an_index_of_another_network_is_refused(indexed, copied, entries, words):
    changed(copied, **entries)

    def opened():
        found, _ = indices.find(indexed[0], str(copied))
        indices.task(found, checkpoint.Reader(indexed[0]), "RUN", queries=1)

    with pytest.raises(UserError, match=words) as error:
        opened()
    assert str(error.value).startswith("--index=")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["features.npz", "features.parquet"])
def test_a_damaged_file_is_named(indexed, copied, name):
    (copied / name).write_bytes(b"damaged")
    with pytest.raises(UserError, match=name):
        indices.find(indexed[0], str(copied))


def test_a_folder_without_an_index_is_refused(indexed, tmp_path):
    with pytest.raises(UserError, match="simclr-eval --config=eval/embed"):
        indices.find(indexed[0], str(tmp_path))
    with pytest.raises(UserError, match="simclr-eval --config=eval/embed"):
        indices.find(tmp_path, None)


def test_features_of_half_the_size_are_read_as_float32(tmp_path):
    x = np.arange(6, dtype=np.float16).reshape(3, 2)
    np.savez(tmp_path / "x.npz", name=np.array(["a"]), features=x)
    found = stored.archived(tmp_path / "x.npz")
    assert found[1:].dtype == np.float32
    np.testing.assert_array_equal(found[1:], x[1:])
    np.savez_compressed(tmp_path / "x.npz", features=x)
    with pytest.raises(ValueError, match="compressed"):
        stored.archived(tmp_path / "x.npz")


def test_pictures_of_rows_are_the_images_and_a_missing_one_is_left_out(indexed):
    found, _ = indices.find(indexed[0], None)
    task = indices.task(found, checkpoint.Reader(indexed[0]), "RUN", queries=1)
    gone = indexed[1] / found.name(3)
    content = gone.read_bytes()
    try:
        gone.write_bytes(b"no image any more")
        images, classes = indices.pictures(found, task, [0, 3, 5])
    finally:
        gone.write_bytes(content)
    assert (sorted(images), classes) == ([0, 5], ("cat", "dog"))
    for row, picture in images.items():
        expected = np.asarray(Image.open(indexed[1] / found.name(row)))
        np.testing.assert_array_equal(picture, expected)


def test_a_class_that_was_added_since_gives_no_wrong_names(indexed, capsys):
    """The labels of the index are those of before, when 0 was the cat."""
    found, _ = indices.find(indexed[0], None)
    task = indices.task(found, checkpoint.Reader(indexed[0]), "RUN", queries=1)
    ape = indexed[1] / "ape"
    ape.mkdir()
    try:
        shutil.copy(indexed[1] / "cat/2.png", ape / "2.png")
        images, classes = indices.pictures(found, task, [0, 5])
    finally:
        shutil.rmtree(ape)
    assert (sorted(images), classes) == ([0, 5], ())
    assert "classes are shown by their numbers" in capsys.readouterr().err

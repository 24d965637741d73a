"""The splits of a dataset: what is held out, and what is said where something is missing."""

import numpy as np
import pytest

from simclr_jax.data import splits
from simclr_jax.data.digits import Digits
from simclr_jax.errors import UserError
from support.sources import encoded, levels, split, write

WAYS = ("train", "eval")


def test_flat_folders_are_unlabelled_and_hold_a_share_out(tmp_path):
    for k in range(20):
        write(tmp_path / f"{k:02}.jpg", encoded((k, 0, 0)))
    train, test = split("folder", tmp_path), split("folder", tmp_path, "eval")
    assert (len(train), len(test), train.num_classes) == (16, 4, 0)
    names = [{s.name(i) for i in range(len(s))} for s in (train, test)]
    assert not names[0] & names[1]
    assert train.load([0])[1].tolist() == [-1]
    other = split("folder", tmp_path, "eval", seed=1)
    assert {other.name(i) for i in range(4)} != names[1]


def test_nothing_is_held_out_where_an_evaluation_split_is_named(prepared):
    """Slices of one split divide it between them, whatever else there is."""
    slices = {"train_split": "train[:75%]", "eval_split": "train[75%:]"}
    train, test = (split("tiny", prepared, which, **slices) for which in ("train", "eval"))
    assert (len(train), len(test)) == (15, 5)
    assert not set(levels(train, np.arange(15))[0]) & set(levels(test, np.arange(5))[0])


def test_images_held_out_are_of_the_split_that_is_trained_on_which_is_opened_once(monkeypatch):
    opened = []
    monkeypatch.setattr(splits, "Digits", lambda name: opened.append(name) or Digits(name))
    monkeypatch.setattr(splits, "EVAL_SPLITS", ())
    options = {"train_split": "train", "eval_split": None, "cache_bytes": 0}
    dataset = splits.Splits("digits", directory=None, **options)
    for which in ("train", "eval"):
        splits.open_split(which, dataset, seed=0, held_out=0.5)
    assert opened == ["train"]


@pytest.mark.parametrize(
    ("train_split", "eval_split", "found"),
    [
        ("train", None, "valid"),
        ("train", "test", "valid"),
        ("train", "valid", None),
        ("train", "val", None),
        (".", "test", None),
    ],
)
def test_images_to_choose_by_are_neither_trained_nor_tested_on(
    tmp_path, train_split, eval_split, found
):
    for name in ("train", "valid", "test"):
        for label in ("cat", "dog"):
            write(tmp_path / name / label / "1.jpg", encoded("red"))
    options = {"train_split": train_split, "eval_split": eval_split, "cache_bytes": 0}
    dataset = splits.Splits("folder", directory=str(tmp_path), **options)
    used = [splits.open_split(which, dataset, seed=0, held_out=0.5).split for which in WAYS]
    source = dataset.validation(used)
    assert (source and source.split) == found
    assert dataset.validation(used, "test").split == "test"


def test_a_folder_too_small_to_hold_out_from_is_named(tmp_path):
    write(tmp_path / "a.jpg", encoded("red"))
    with pytest.raises(UserError, match=r"config\.data\.held_out=0\.2: is 0 of 1 images"):
        split("folder", tmp_path)


@pytest.mark.parametrize(
    ("name", "directory", "eval_split", "line"),
    [
        ("folder", None, None, "config.data.dir=None"),
        ("folder", "nowhere", None, "config.data.dir='nowhere': no such folder"),
        ("folder", ".", None, "no images in it"),
        ("folder", ".", "validation", "config.data.eval_split='validation': the folder has"),
        ("digits", None, "validation", "config.data.eval_split='validation': digits has"),
        ("cifar10", ".", None, "config.data.dir='.': 'cifar10' is not prepared"),
        ("no_such_set", ".", None, "config.data.name='no_such_set'"),
        ("huggingface:x", ".", None, "config.data.name='huggingface:x'"),
    ],
)
def test_missing_data_are_named(tmp_path, monkeypatch, name, directory, eval_split, line):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        split(name, directory, "eval", eval_split=eval_split)
    assert line in str(error.value)


@pytest.mark.parametrize("name", ["digits", "folder"])
@pytest.mark.parametrize("key", ["image_key", "label_key"])
def test_features_are_chosen_from_a_tfds_dataset_only(tmp_path, name, key):
    with pytest.raises(UserError, match=rf"data\.{key}=.*'{name}' has no features to choose"):
        split(name, tmp_path, **{key: "image"})

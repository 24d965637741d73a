"""Which folders are splits and which are classes, by their names alone."""

import pytest

from simclr_jax.data.arrangement import arrange, not_classes


def folders(*paths):
    return {f"{path}/" if path else "": 3 for path in paths}


@pytest.mark.parametrize(
    ("paths", "base", "splits"),
    [
        (["train/a", "train/b", "valid/a", "valid/b"], "", ["train", "valid"]),
        (["Train/a", "Val/a"], "", ["Train", "Val"]),
        (["train2017", "val2017"], "", ["train2017", "val2017"]),
        (["training/a", "validation/a", "testing/a"], "", ["training", "testing", "validation"]),
        (["train_set/a", "dev-set/a", "test_set/a"], "", ["train_set", "test_set", "dev-set"]),
        (["images_train", "images_test"], "", ["images_train", "images_test"]),
        (["train/a", "dev/a", "unlabeled"], "", ["train", "dev", "unlabeled"]),
        (["train/a", "validation/a", "val/a"], "", ["train", "val", "validation"]),
        (["train/a", "test/a", "extra"], "", ["train", "test"]),
        (["train/a", "train/b"], "", ["train"]),
        (["", "train/a", "val/a"], "", ["train", "val"]),
        (["DATA/a", "DATA/b"], "DATA/", []),
        (["trn/a", "tst/a"], "", ["trn", "tst"]),
        (["x/DATA/train/a", "x/DATA/val/a"], "x/DATA/", ["train", "val"]),
        (["images/train", "images/val"], "images/", ["train", "val"]),
        (["images"], "", []),
        ([""], "", []),
        (["bus", "train"], "", []),
        (["mask", "no_mask"], "", []),
        (["hr", "si"], "", []),
        (["trains", "valley", "tester"], "", []),
    ],
)
def test_folders_with_usual_names_are_splits(paths, base, splits):
    found = arrange(folders(*paths))
    assert (found.base, list(found.splits), found.unclear) == (base, splits, None)


@pytest.mark.parametrize(
    "paths",
    [
        ["images", "masks"],
        ["images/a", "images/b", "cat"],
        ["JPEGImages", "SegmentationClass", "SegmentationObject"],
        ["photos", "masks"],
        ["HR", "LR"],
        ["high_res", "low_res"],
        ["trainA", "trainB", "testA", "testB"],
        ["seg_train/a", "seg_test/a", "seg_pred"],
        ["train_images", "train_masks"],
        ["cat", "dog", "test"],
        ["val/a", "test/a"],
        ["test/a", "test/b"],
        ["train2014", "train2017", "val2017"],
        ["train/a", "train/b", "bus"],
        ["cat/train", "cat/test", "dog/train", "dog/test"],
        ["leftImg8bit/train/aachen", "leftImg8bit/val/lindau", "gtFine/train/aachen"],
    ],
)
def test_folders_that_may_be_either_are_unclear(paths):
    unclear = arrange(folders(*paths)).unclear
    assert unclear is not None
    assert "'" in unclear


def test_what_is_beside_images_in_a_split_is_no_class():
    assert not_classes(folders("train/images", "train/masks", "val/images"), "train/")
    assert not not_classes(folders("train/cat", "train/dog"), "train/")

"""A folder of images: which files belong to it, and what their labels are."""

import logging

import pytest

from simclr_jax.errors import UserError
from support.sources import encoded, pixel, split, write


def images(root, *folders):
    """Two images in each folder."""
    for folder in folders:
        for k in range(2):
            write(root / folder / f"{k}.jpg", encoded("red"))


def test_nested_folders_are_classes_in_order(tmp_path):
    for name, colour in [("b", "blue"), ("a", "red")]:
        for k in range(2):
            write(tmp_path / "train" / name / f"{k}.jpg", encoded(colour))
    write(tmp_path / "val" / "b" / "deep" / "x.png", encoded("blue", "PNG"))
    train, test = split("folder", tmp_path), split("folder", tmp_path, "eval")
    assert (len(train), train.num_classes) == (4, 2)
    images, labels = train.load([0, 1, 2, 3])
    assert labels.tolist() == [0, 0, 1, 1]
    assert pixel(images[0])[0] > 200
    assert test.load([0])[1].tolist() == [1]  # the class number that training uses


def test_one_folder_alone_is_no_label(tmp_path):
    write(tmp_path / "images" / "x.jpg", encoded("red"))
    write(tmp_path / "images" / "y.jpg", encoded("red"))
    assert split("folder", tmp_path, eval_split="train").num_classes == 0


def test_hidden_files_and_other_files_are_left_out(tmp_path):
    write(tmp_path / "x.JPG", encoded("red"))
    write(tmp_path / ".y.jpg", encoded("red"))
    write(tmp_path / ".git" / "z.jpg", encoded("red"))
    write(tmp_path / "notes.txt", b"no image")
    write(tmp_path / "w.jpeg", encoded("red"))
    assert len(split("folder", tmp_path, eval_split="train")) == 2


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "train"):
        write(tmp_path / name / "x.jpg", encoded("red"))
    source = split("folder", tmp_path, eval_split="train")
    assert (len(source), source.num_classes) == (2, 2)


def test_files_and_empty_folders_beside_train_count_for_nothing(tmp_path):
    images(tmp_path, "train/cat", "train/dog")
    write(tmp_path / "README.md", b"text")
    write(tmp_path / "annotations" / "boxes.xml", b"<xml/>")
    assert split("folder", tmp_path, held_out=0.5).num_classes == 2


def test_valid_beside_train_is_evaluated_on(tmp_path):
    images(tmp_path, "train/cat", "train/dog", "valid/cat", "valid/dog")
    train, test = (split("folder", tmp_path, which) for which in ("train", "eval"))
    assert (len(train), len(test), train.class_names) == (4, 4, ("cat", "dog"))
    assert (train.split, test.split) == ("train", "valid")
    assert test.load([0, 3])[1].tolist() == [0, 1]
    assert split("folder", tmp_path, "eval", eval_split="val").name(0) == "cat/0.jpg"


def test_a_split_without_folders_of_a_class_has_no_labels(tmp_path, caplog):
    images(tmp_path, "train/cat", "train/dog", "val/images")
    with caplog.at_level(logging.WARNING, "simclr_jax"):
        test = split("folder", tmp_path, "eval")
    assert "'val' has no labels" in caplog.text
    assert (test.num_classes, test.load([0])[1].tolist()) == (0, [-1])
    assert split("folder", tmp_path).class_names == ("cat", "dog")


def test_of_many_unknown_classes_the_first_are_named_and_the_others_counted(tmp_path, caplog):
    images(tmp_path, "train/cat", "val/cat", *(f"val/new{number}" for number in range(7)))
    with caplog.at_level(logging.WARNING, "simclr_jax"):
        split("folder", tmp_path, "eval")
    assert "has not: 'new0', 'new1', 'new2', 'new3', 'new4' and 2 more" in caplog.text


def test_a_loose_image_is_named_as_what_takes_labels_away(tmp_path, caplog):
    images(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog")
    write(tmp_path / "val" / "loose.jpg", encoded("red"))
    with caplog.at_level(logging.WARNING, "simclr_jax"):
        assert split("folder", tmp_path, "eval").num_classes == 0
    assert "'val' has no labels: 1 of its images lie beside the folders of its" in caplog.text


def test_a_split_with_labels_is_evaluated_on_before_one_without(tmp_path):
    images(tmp_path, "train/cat", "train/dog", "val/cat", "test/images")
    test = split("folder", tmp_path, "eval")
    assert (test.split, test.num_classes) == ("val", 2)


def test_a_folder_too_many_is_gone_through_and_named(tmp_path, caplog):
    images(tmp_path, "DATA/cat", "DATA/dog")
    with caplog.at_level(logging.WARNING, "simclr_jax"):
        assert split("folder", tmp_path).class_names == ("cat", "dog")
    assert "'DATA/'" in caplog.text


def test_an_unclear_folder_is_refused_until_its_splits_are_named(tmp_path):
    images(tmp_path, "cat", "dog", "test/cat", "test/dog")
    with pytest.raises(UserError, match=r"config\.data\.dir=.*'test' may be.*data\.train_split"):
        split("folder", tmp_path)
    named = {"eval_split": "test"}
    train, test = (split("folder", tmp_path, which, **named) for which in ("train", "eval"))
    assert [train.name(k) for k in range(len(train))] == [
        f"{name}/{k}.jpg" for name in ("cat", "dog") for k in range(2)
    ]
    assert (len(test), test.num_classes, train.num_classes) == (4, 2, 2)
    whole = split("folder", tmp_path, train_split=".", held_out=0.5)
    assert whole.class_names == ("cat", "dog", "test")


@pytest.mark.parametrize(
    ("named", "below"),
    [
        ({"train_split": "photos", "eval_split": "photos/val"}, "photos/"),
        ({"eval_split": "photos/val"}, "photos/"),
        ({"train_split": ".", "eval_split": "photos/val"}, "photos/"),
        ({"eval_split": "x_test"}, ""),
    ],
)
def test_a_split_inside_that_to_train_on_is_no_class_of_it(tmp_path, named, below):
    test, own = named["eval_split"], below or "x_train/"
    images(tmp_path, f"{own}cat", f"{own}dog", f"{test}/deep/cat", f"{test}/deep/dog")
    train, evaluation = (split("folder", tmp_path, which, **named) for which in ("train", "eval"))
    assert (train.class_names, evaluation.class_names) == (("cat", "dog"),) * 2
    assert [train.name(k) for k in range(4)] == ["cat/0.jpg", "cat/1.jpg", "dog/0.jpg", "dog/1.jpg"]
    assert evaluation.load(range(4))[1].tolist() == [0, 0, 1, 1]


def test_classes_are_asked_for_where_only_the_evaluation_is_named(tmp_path):
    images(tmp_path, "train/images", "train/masks", "val/images", "val/masks")
    with pytest.raises(UserError, match=r"'images', 'masks' may be"):
        split("folder", tmp_path, eval_split="val")


def test_images_beside_masks_are_refused_until_one_is_named(tmp_path):
    images(tmp_path, "images", "masks")
    with pytest.raises(UserError, match=r"'images', 'masks' may be"):
        split("folder", tmp_path)
    source = split("folder", tmp_path, train_split="images", held_out=0.5)
    assert (source.num_classes, source.place) == (0, str(tmp_path / "images"))


def test_what_is_left_out_is_counted(tmp_path, caplog):
    images(tmp_path, ".")
    write(tmp_path / "a.heic", b"\0\0\0\x18ftypheic")
    with caplog.at_level(logging.WARNING, "simclr_jax"):
        split("folder", tmp_path, held_out=0.5)
    assert "left out 1 .heic" in caplog.text


def test_of_many_kinds_that_are_left_out_few_are_named(tmp_path, caplog):
    images(tmp_path, ".")
    for k in range(30):
        write(tmp_path / f"scan.{k:04}", b"DICM")
        write(tmp_path / f"notes.x{k}", b"text")
    write(tmp_path / "image.0001", encoded("red"))
    with caplog.at_level(logging.WARNING, "simclr_jax"):
        assert len(split("folder", tmp_path, eval_split="train")) == 3
    assert "left out 30 without an ending, 1 .x" in caplog.text
    assert ", 21 others" in caplog.text

"""Which labels are seen: draws are balanced, nested and repeatable, and a list is taken by name."""

import itertools

import numpy as np
import pytest

from simclr_jax.config import constraints, overrides, parts, record, sources
from simclr_jax.data import labels, tfds
from simclr_jax.data.digits import Digits
from simclr_jax.data.fingerprint import cache_key, differences, fingerprint
from simclr_jax.data.images import pixels
from simclr_jax.data.readable import Readable
from simclr_jax.errors import UserError
from support.sources import encoded, said, split, write

DIGITS = Digits("train")
THERE = np.bincount(DIGITS.labels())  # The images of each class.


def per_class(rows):
    return np.bincount(DIGITS.labels()[rows], minlength=10).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_the_same_number_of_each_class_is_drawn_and_a_smaller_draw_is_part_of_a_larger(seed):
    draws = [labels.by_class(DIGITS, n, seed=seed).rows for n in (1, 2, 5, int(THERE.min()))]
    for n, rows in zip((1, 2, 5, THERE.min()), draws, strict=True):
        assert per_class(rows) == [n] * 10
        assert (np.diff(rows) > 0).all()
    for small, large in itertools.pairwise(draws):
        assert set(small) < set(large)


@pytest.mark.parametrize("seed", range(3))
def test_a_fraction_gives_each_class_its_share_and_at_least_one_image(seed):
    draws = [labels.by_fraction(DIGITS, f, seed=seed).rows for f in (1e-3, 0.01, 0.1, 0.5, 1.0)]
    assert per_class(draws[0]) == [1] * 10
    assert per_class(draws[2]) == [round(0.1 * n) for n in THERE]
    assert draws[4].tolist() == list(range(len(DIGITS)))
    for small, large in itertools.pairwise(draws):
        assert set(small) <= set(large)


def test_seeds_draw_other_images_each_as_often_as_any_other():
    draws = [labels.by_class(DIGITS, 5, seed=seed).rows for seed in range(200)]
    assert len({rows.tobytes() for rows in draws}) == 200
    often = np.bincount(np.concatenate(draws), minlength=len(DIGITS))
    expected = 200 * 5 / THERE[DIGITS.labels()]
    # Counts of independent draws have a variance of nearly their mean: chi² is near its mean.
    chi2 = ((often - expected) ** 2 / expected).sum() / len(DIGITS)
    assert 0.85 < chi2 < 1.1


CONFIG = overrides.load(["--config=digits", "--config.data.labels_per_class=3"])


@pytest.mark.parametrize("other", [{"seed": 7}, {"train.batch_size": 32}, {"data.label_seed": 1}])
def test_a_draw_depends_on_the_label_seed_alone(other):
    def seen(config):
        train, _ = sources.open_splits(config)
        return np.flatnonzero(train.source.labels() >= 0).tolist()

    ours, theirs = seen(CONFIG), seen(overrides.changed(CONFIG, other))
    assert len(ours) == 30
    assert (ours == theirs) == ("data.label_seed" not in other)


def test_a_supervised_run_trains_on_the_chosen_images_alone_and_counts_epochs_over_them():
    chosen = {"objective.name": "supervised", "train.batch_size": 16, "train.epochs": 4.0}
    config = overrides.changed(CONFIG, chosen)
    train, test = sources.open_splits(config)
    assert (len(train), len(test)) == (30, 360)
    seen, _ = sources.open_splits(CONFIG)
    shown = np.flatnonzero(seen.source.labels() >= 0)
    assert [train.name(row) for row in range(30)] == [seen.name(int(row)) for row in shown]
    assert train.load(range(30))[1].tolist() == seen.source.labels()[shown].tolist()
    assert parts.schedule(parts.with_counts(config, train)).total_steps == 30 * 4 // 16 + 1
    with pytest.raises(UserError, match=r"=512: must be at most the 30 images of 'train with"):
        sources.open_splits(overrides.changed(config, {"train.batch_size": 512}))


def test_an_evaluation_reads_the_chosen_training_images_alone_and_all_for_evaluation():
    opened = sources.open_all(CONFIG)
    assert {name: len(source) for name, source in opened.items()} == {"train": 30, "eval": 360}
    chosen = sources.open_split(CONFIG, "train")
    assert [chosen.name(k) for k in range(30)] == [opened["train"].name(k) for k in range(30)]
    assert len(sources.open_split(CONFIG, "eval")) == 360


def test_all_images_stay_and_only_the_labels_of_the_others_are_hidden():
    chosen = labels.by_class(DIGITS, 2, seed=0)
    seen = Readable(labels.Seen(DIGITS, chosen), on_bad_image="error")
    images, found = seen.load(range(len(DIGITS)))
    alone = [pixels(data) for data in DIGITS.load(range(len(DIGITS)))[0]]
    np.testing.assert_array_equal([image.pixels() for image in images], alone)
    assert np.flatnonzero(found >= 0).tolist() == chosen.rows.tolist()
    assert found[chosen.rows].tolist() == DIGITS.labels()[chosen.rows].tolist()
    assert seen.source.labels().tolist() == found.tolist()
    assert seen.split == "train with few labels: 20 of 1437 images, 2 a class"


def test_the_chosen_images_can_stand_alone():
    chosen = labels.by_fraction(DIGITS, 0.01, seed=0)
    alone = labels.alone(DIGITS, chosen)
    assert len(alone) == len(chosen.rows)
    assert alone.name(3) == DIGITS.name(int(chosen.rows[3]))
    assert alone.load([3])[0] == DIGITS.load([chosen.rows[3]])[0]
    assert alone.labels().tolist() == DIGITS.labels()[chosen.rows].tolist()
    assert alone.split == f"train with {chosen.words}"
    assert chosen.words == "1 % of the labels: 12 of 1437 images, 1 to 2 a class"


def test_a_class_with_too_few_images_is_named_with_their_number():
    fewest = int(THERE.argmin())
    line = rf"label.*=999: class {fewest} \('{fewest}'\) has {THERE.min()} labelled images of 'tr"
    with pytest.raises(UserError, match=line), said():
        labels.by_class(DIGITS, 999, seed=0)


@pytest.fixture
def folders(tmp_path):
    """Two classes with four images each; one file's name is in both."""
    for name in ("a/0", "a/2", "a/4", "a/same", "b/1", "b/3", "b/5", "b/same"):
        write(tmp_path / f"set/train/{name}.png", encoded("red", "PNG"))
    write(tmp_path / "set/test/a/0.png", encoded("red", "PNG"))
    return split("folder", tmp_path / "set")


def listed(source, tmp_path, text):
    (tmp_path / "list.txt").write_bytes(text)
    with said():
        return labels.by_list(source, str(tmp_path / "list.txt"))


def test_listed_images_are_found_by_their_names_or_the_last_part_of_them(tmp_path, folders):
    chosen = listed(folders, tmp_path, b"\xef\xbb\xbfa/0.png\r\n\nb/same.png\n5.png")
    assert [folders.name(row) for row in chosen.rows] == ["a/0.png", "b/5.png", "b/same.png"]
    assert chosen.words == "the labels of a list: 3 of 8 images, 1 to 2 a class"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            b"a/0.png\nb/9.png\nsame.png\n",
            "2 of its 3 names are no images of 'train', such as 'b/9",
        ),
        (b"\n  \n", "the file has no names"),
        (b"a/0.png\n", "class 1 ('b') has 0 labelled images in the list, and needs 1"),
    ],
)
def test_a_list_that_cannot_be_used_says_why(tmp_path, folders, text, line):
    with pytest.raises(UserError) as error:
        listed(folders, tmp_path, text)
    assert line in str(error.value)
    assert str(error.value).startswith(f"config.data.label_list='{tmp_path}/list.txt': ")


@pytest.mark.parametrize("name", ["nowhere.txt", "."])
def test_a_list_that_is_not_there_is_named(name):
    with pytest.raises(UserError, match=r"config\.data\.label_list='.*': no such file"), said():
        labels.by_list(DIGITS, name)


def test_images_that_have_no_label_cannot_be_listed(tmp_path, partly):
    half = split("partly", partly, train_split="validation")
    names = {found >= 0: half.name(row) for row, found in enumerate(half.labels())}
    with pytest.raises(UserError, match=f"1 of the images .* have no label, .*{names[False]}"):
        listed(half, tmp_path, f"{names[True]}\n{names[False]}\n".encode())


def test_labels_are_learned_only_where_the_evaluations_classes_have_examples(tmp_path, monkeypatch):
    for name in ("train/a/1.jpg", "train/a/2.jpg", "train/b/1.jpg", "test/a/1.jpg", "test/c/1.jpg"):
        write(tmp_path / name, encoded((200, 0, 0)))
    flags = ["--config=supervised:data=folder", f"--config.data.dir={tmp_path}"]
    config = overrides.load([*flags, "--config.train.batch_size=2"])
    line = r"data\.train_split='train': has no example of class 2 \('c'\), which the evaluation"
    labelled = {"objective.name": "distill", "objective.label_weight": 0.5}
    for changes in ({}, labelled):
        with pytest.raises(UserError, match=line), said():
            sources.open_splits(overrides.changed(config, changes))
    for changes in ({"objective.name": "contrastive"}, {**labelled, "objective.label_weight": 0.0}):
        sources.open_splits(overrides.changed(config, changes))
    monkeypatch.setattr(sources, "FEW_LABELS", 2)
    sources.open_splits(config)


def test_without_labels_there_is_nothing_to_choose_from(partly):
    test = split("partly", partly, train_split="test")
    with pytest.raises(UserError, match=r"data\.label_fraction=0\.5: 'test' has no labels"), said():
        labels.by_fraction(test, 0.5, seed=0)


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_all_labels_of_records_are_those_that_come_with_the_images(
    prepared, cache_bytes, monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tfds, "_PART", 7)
    train = split("tiny", prepared, cache_bytes=cache_bytes)
    assert train.labels().tolist() == train.load(range(20))[1].tolist()
    monkeypatch.setattr(train._reader, "__getitems__", None, raising=False)
    assert train.labels() is train.labels()  # They are read once.


def test_other_choices_have_other_fingerprints_and_keys_of_features():
    draws = [labels.by_class(DIGITS, 2, seed=seed) for seed in range(2)]
    seen = [fingerprint(labels.Seen(DIGITS, chosen)) for chosen in draws]
    assert "seen" in differences(*seen)
    assert "seen" not in fingerprint(DIGITS)
    subsets = [labels.alone(DIGITS, chosen) for chosen in draws]
    assert differences(*map(fingerprint, subsets)) == ["names"]
    assert subsets[0].split == subsets[1].split
    assert cache_key(subsets[0]) != cache_key(subsets[1])


def test_a_run_does_not_go_on_with_another_list(tmp_path):
    now, before = (
        {"train": fingerprint(labels.Seen(DIGITS, labels.by_class(DIGITS, 2, seed=seed)))}
        for seed in range(2)
    )
    with pytest.raises(UserError, match="the choice of the labels that are seen of the training"):
        record.check_same_images(now, {"fingerprints": before}, "RUN", allow_change=False)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"data.label_fraction": 0.0}, "data.label_fraction=0.0: must be above 0 and at most 1"),
        ({"data.label_fraction": 0.1}, "data.labels_per_class=3: must be None where data.label_f"),
        ({"data.num_classes": 0}, "data.num_classes=0: must be another number, or None, for data"),
        ({"data.label_seed": -1}, "data.label_seed=-1: must be at least 0"),
    ],
)
def test_keys_that_choose_in_two_ways_or_among_nothing_are_refused(flags, line):
    with pytest.raises(UserError) as error:
        constraints.check_run(overrides.changed(CONFIG, flags), devices=8)
    assert line in str(error.value)

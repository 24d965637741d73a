"""The teacher of a run: found, refused before anything is computed, and known again."""

import json
import shutil

import chex
import pytest

from simclr_jax import eval as evaluation
from simclr_jax import train, verify
from simclr_jax.config import constraints, overrides, parts, record
from simclr_jax.errors import UserError
from simclr_jax.run import teacher
from simclr_jax.store import checkpoint
from support.runs import TINY, killed_after, result, rows, saved_digests, status_of

DISTILL = "--config.objective.name=distill"


def student(run, **changes):
    config = overrides.load([*TINY, DISTILL])
    known = {"objective.teacher": run and str(run), "data.num_classes": 10}
    return overrides.changed(config, {**known, **changes})


def test_the_newest_checkpoint_teaches_and_goes_on_teaching_when_there_is_a_newer_one(finished):
    found = teacher.load(student(finished), {})
    (known,) = found.fingerprint.values()
    assert (known["run"], known["step"]) == (str(finished), 8)
    weights = checkpoint.Reader(finished).model(8, found.teacher.variables)
    chex.assert_trees_all_equal(found.teacher.variables, weights)
    before = teacher.load(student(finished), {"fingerprints": {"teacher": {"step": 4}}})
    assert before.fingerprint["teacher"]["step"] == 4
    assert before.fingerprint["teacher"]["weights"] != known["weights"]


def test_other_weights_are_another_teacher(finished):
    found = teacher.load(student(finished), {})
    described = {"fingerprints": found.fingerprint}
    assert record.check_same_images(found.fingerprint, described, "RUN", allow_change=False) == []
    others = {"teacher": {**found.fingerprint["teacher"], "weights": "others"}}
    with pytest.raises(UserError, match=r"RUN: holds a run with another teacher \(checkpoint 8 of"):
        record.check_same_images(others, described, "RUN", allow_change=False)
    words = record.check_same_images(others, described, "RUN", allow_change=True)
    assert words == ["the weights of the teacher"]
    with pytest.raises(UserError, match="changed since this run are the weights of the teacher"):
        teacher.again(student(finished), {"fingerprints": others})


@pytest.fixture
def other(finished, tmp_path):
    """A function that makes a run like the finished one, with other keys in its description."""

    def make(changes, steps=(8,)):
        for step in steps:
            shutil.copytree(finished / f"checkpoints/{step}", tmp_path / f"checkpoints/{step}")
        described = json.loads((finished / "config.json").read_text())
        for key, value in changes.items():
            section, name = key.split(".")
            described["config"][section][name] = value
        (tmp_path / "config.json").write_text(json.dumps(described))
        return tmp_path

    return make


def test_a_run_that_cannot_teach_is_refused_by_its_description(other, finished):
    """Without a checkpoint it is the description that is read, before any weight."""
    for changes, keys, line in (
        ({}, {}, None),
        ({"data.num_classes": 0}, {}, "the network of this run has no classifier"),
        ({}, {"data.num_classes": 7}, "its classifier has 10 classes, and the images have 7"),
        (
            {"model.stem": "imagenet"},
            {},
            "data.image_size=8: must be at least 32 for the teacher's",
        ),
    ):
        config = student(other(changes, steps=()), **keys)
        if line is None:
            assert teacher.untrained(config)[0].classes == 10
            continue
        with pytest.raises(UserError) as error:
            teacher.untrained(config)
        assert line in str(error.value)


@pytest.mark.parametrize(
    ("run", "line"),
    [
        (None, "config.objective.teacher=None: objective.name='distill' needs the run of a teach"),
        ("nowhere", "config.objective.teacher=nowhere: no run there (no config.json)"),
        ("empty", "config.objective.teacher=empty: has no checkpoint yet"),
    ],
)
def test_a_run_that_is_not_there_is_named(other, tmp_path, monkeypatch, capsys, run, line):
    monkeypatch.chdir(tmp_path)
    other({}, steps=())
    (tmp_path / "empty").mkdir()
    shutil.move(tmp_path / "config.json", tmp_path / "empty/config.json")
    given = [] if run is None else [f"--config.objective.teacher={run}"]
    assert status_of(train.main, *TINY, DISTILL, *given, "--workdir=student") == 2
    assert line in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "student/config.json").exists()


def test_the_names_of_its_classes_are_compared_where_both_are_known(finished, other, capsys):
    """A run of an older version has none; without labels no names are asked for."""
    names = [*"0123456789"]
    found = teacher.load(student(finished), {}, names)
    assert found.fingerprint["teacher"]["classes"] == names
    assert "number alone" not in capsys.readouterr().out
    for classes, line in (
        (names[::-1], "its classifier has the same classes in another order; with data.num_cl"),
        ([*"abcdefghij"], "its classifier has other classes, such as '0'; with data.num_classes=0"),
    ):
        with pytest.raises(UserError) as error:
            teacher.load(student(finished), {}, classes)
        assert f"config.objective.teacher={str(finished)!r}: {line}" in str(error.value)
    teacher.load(student(finished), {}, None)
    line = "the images have no names of classes: they are compared by their number alone"
    assert line in capsys.readouterr().out
    unlabelled = student(finished, **{"data.num_classes": 0})
    known = teacher.load(teacher.with_classes(unlabelled), {}, None).fingerprint
    assert record.classes_of({"fingerprints": {"train": {}, **known}}) == names
    assert capsys.readouterr().out == ""


def test_a_teacher_of_other_channels_is_refused(finished):
    with pytest.raises(UserError, match=r"takes images of 3 channels, and data.channels=1"):
        teacher.load(student(finished, **{"data.channels": 1}), {}, None)


def test_without_labels_the_teachers_classes_count(other):
    config = student(other({}, steps=()), **{"data.num_classes": 0})
    known = teacher.with_classes(config)
    assert (known.objective.classes, parts.model(known).classes) == (10, 10)
    assert parts.model(student(None)).classes == 10
    without = overrides.changed(config, {"objective.teacher": None})
    with pytest.raises(UserError, match=r"teacher=None: objective.name='distill' needs"):
        teacher.with_classes(without)
    alone = overrides.changed(without, {"objective.classes": 7})  # As simclr-plan may have it.
    assert parts.model(teacher.with_classes(alone)).classes == 7


def test_a_teacher_is_refused_where_nothing_is_taught():
    config = overrides.changed(student("RUN"), {"objective.name": "supervised"})
    with pytest.raises(UserError, match=r"teacher='RUN': must be None without objective.name=dist"):
        constraints.check_run(config, devices=8)


@pytest.mark.slow
def test_a_distillation_goes_on_exactly_and_is_replayed_and_verified(
    finished, tmp_path, monkeypatch, capsys
):
    """Stopped after step 3; the last checkpoint is at 2. Two microbatches, few labels."""
    flags = [
        *TINY, DISTILL, f"--config.objective.teacher={finished}", "--config.train.steps=5",
        "--config.checkpoint.every_steps=2", "--config.train.batch_size=32",
        "--config.train.microbatches=2", "--config.data.label_fraction=0.5",
        "--config.objective.label_weight=0.2", "--config.objective.temperature=2.0",
        "--config.model.width=0.125",
    ]  # fmt: skip
    assert status_of(train.main, *flags, f"--workdir={tmp_path}/whole") == 0
    whole = rows(tmp_path / "whole")
    for row in whole:
        assert row["loss"] == pytest.approx(
            0.8 * row["distillation_loss"] + 0.2 * row["classifier_loss"] + row["weight_decay_loss"]
        )
        assert 0 <= row["teacher_agreement"] <= 1
    with killed_after(monkeypatch, 3):
        train.main([*flags, f"--workdir={tmp_path}/cut"])
    assert status_of(train.main, *flags, f"--workdir={tmp_path}/cut") == 0
    assert rows(tmp_path / "cut") == whole
    assert saved_digests(tmp_path / "cut", 5) == saved_digests(tmp_path / "whole", 5)
    assert status_of(verify.main, f"--run={tmp_path}/whole") == 0
    assert "what config and seed lead to, bit for bit" in capsys.readouterr().out
    assert status_of(verify.main, *TINY, DISTILL, "--images_per_device=2", "--devices=8") == 0


@pytest.mark.slow
def test_a_distillation_without_labels_goes_on_exactly_and_is_replayed(
    finished, tmp_path, monkeypatch, capsys
):
    """Its rows know nothing of labels. Its classifier has the teacher's classes, and is judged."""
    flags = [
        *TINY, DISTILL, "--config.data.num_classes=0", "--config.train.steps=5",
        "--config.checkpoint.every_steps=2", "--config.eval.every_steps=2",
    ]  # fmt: skip
    taught = f"--config.objective.teacher={finished}"
    assert status_of(train.main, *flags, taught, f"--workdir={tmp_path}/whole") == 0
    whole = rows(tmp_path / "whole")
    scores = {"eval_loss", "eval_agreement"}
    for row in whole:
        assert row["loss"] == pytest.approx(row["distillation_loss"] + row["weight_decay_loss"])
        assert not {"classifier_loss", "train_accuracy", "eval_top1"} & set(row)
        assert scores & set(row) == (scores if row["step"] in (2, 4, 5) else set())
    with killed_after(monkeypatch, 3):
        train.main([*flags, taught, f"--workdir={tmp_path}/cut"])
    assert status_of(train.main, *flags, taught, f"--workdir={tmp_path}/cut") == 0
    assert rows(tmp_path / "cut") == whole
    assert saved_digests(tmp_path / "cut", 5) == saved_digests(tmp_path / "whole", 5)
    assert status_of(verify.main, f"--run={tmp_path}/whole", "--step=1", "--steps=2") == 0
    assert "what config and seed lead to, bit for bit" in capsys.readouterr().out
    judged = ["--config=eval/classifier", f"--run={tmp_path}/whole"]
    assert status_of(evaluation.main, *judged) == 0
    found = result(tmp_path / "whole", "classifier", 5, "*")
    assert found["num_examples"] == 360
    assert 0 <= found["top1"] <= 1

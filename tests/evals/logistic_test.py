"""Logistic regression of a run's features: what it is chosen by, and what it refuses."""

import json
from functools import partial

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from simclr_jax import cli
from simclr_jax import eval as evaluation
from simclr_jax.evals.metrics import map11
from support.runs import result, status_of
from support.scenes import scenes_of

run = partial(status_of, evaluation.main, "--config=eval/logistic")
FEW = [
    "--config.logistic.l2_count=3",
    "--config.logistic.l2_range=(0.1,1e5)",
    "--config.features.layer=pixels",
]


@pytest.fixture
def folder(tmp_path):
    """Images of two classes, dark and light: ten to train on, four for each other split."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 4), ("test", 4)):
        for number in range(count):
            light = number % 2
            path = tmp_path / split / ("dark", "light")[light] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            level = int(rng.integers(0, 60)) + 180 * light
            Image.new("RGB", (9, 9), (level, level, level)).save(path)
    return tmp_path


def of(folder):
    return ["--config.data.name=folder", f"--config.data.dir={folder}"]


def test_the_strength_is_chosen_on_a_part_of_the_training_split(finished, capsys):
    assert run(f"--run={finished}", *FEW) == 0
    found = result(finished, "logistic", 8, "pixels,digits,l2_count=3,l2_range=*")
    assert found["top1"] == pytest.approx(0.964, abs=0.02)  # as scikit-learn has it
    assert (found["num_examples"], found["unconverged"]) == (360, 0)
    assert [each["l2"] for each in found["tried"]] == pytest.approx([0.1, 100, 1e5])
    best = max(found["tried"], key=lambda each: each["top1"])
    assert (found["l2"], found["validation_top1"]) == (best["l2"], best["top1"])
    line = capsys.readouterr().out
    assert run("--list", f"--run={finished}") == 0
    assert line.split("  (")[0].partition(": ")[2] in capsys.readouterr().out
    assert "layer pixels, L2 0.1, the smallest of 3, by 144 held out of train by seed 0  (" in line


@pytest.mark.slow
def test_the_strength_is_chosen_on_the_dataset_s_own_validation_split(finished, folder, tmp_path):
    where = [f"--run={finished}", f"--to={tmp_path}/results", *FEW, *of(folder)]
    assert run(*where) == 0
    (path,) = (tmp_path / "results/logistic/8").glob("*/result.json")
    found = json.loads(path.read_text())
    assert (found["validation"], found["top1"], found["num_examples"]) == ("4 of val", 1.0, 4)


def scenes_in(folder):
    """The flags for the images of several labels; see `support.scenes`."""
    return [
        "--config.data.name=scenes", f"--config.data.dir={folder}", "--config.data.label_key=labels"
    ]  # fmt: skip


@pytest.mark.slow
def test_of_several_labels_the_eleven_point_precision_is_chosen_by_and_told(
    finished, scenes, tmp_path, capsys
):
    """As scikit-learn's regressions of the same strengths have it, on the same pixels."""
    where = [f"--run={finished}", f"--to={tmp_path}", *scenes_in(scenes)]
    assert run(*where, *FEW, "--config.data.image_size=9") == 0
    (path,) = (tmp_path / "logistic/8").glob("*/result.json")
    found = json.loads(path.read_text())
    tried = {each["l2"]: each["map11"] for each in found["tried"]}
    (x, labels), valid, test = (pixels_of(split) for split in ("train", "validation", "test"))
    for l2, ours in tried.items():
        assert ours == pytest.approx(map11(scores_by_sklearn(x, labels, valid[0], l2), valid[1]))
    assert found["validation_map11"] == tried[found["l2"]] == max(tried.values())
    both = np.concatenate([x, valid[0]]), np.concatenate([labels, valid[1]])
    expected = map11(scores_by_sklearn(*both, test[0], found["l2"]), test[1])
    assert found["map11"] == pytest.approx(expected)
    assert (found["num_examples"], found["unlabelled"]) == (40, 0)
    assert f"11-point mAP {found['map11']:.1%} on 40 images of scenes" in capsys.readouterr().out


def pixels_of(split):
    """The pixels (n, 243) in [0, 1] and the labels (n, 3) of a split."""
    images, labels = scenes_of(split)
    return images.reshape(len(images), -1) / 255, labels


def scores_by_sklearn(x, labels, test, l2):
    """The scores (n, 3) of test images by scikit-learn, of each class on the images that count."""
    found = []
    for label in labels.T:
        model = LogisticRegression(C=1 / l2, tol=1e-6, max_iter=5000)
        model.fit(x[label >= 0], label[label >= 0])
        found.append(model.decision_function(test))
    return np.stack(found, axis=1)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--config.logistic.l2_range=(0.0,1.0)"], "config.logistic.l2_range=(0.0, 1.0): must"),
        (["--config.logistic.l2_count=0"], "config.logistic.l2_count=0: must be at least 1"),
        (["--config.logistic.held_out=1.0"], "config.logistic.held_out=1.0: must be a fraction"),
        (["--config.data.validation_split=dev"], "config.data.validation_split='dev': digits has"),
        (["--config.data.num_classes=0"], "config.data.train_split='train': logistic needs labels"),
    ],
)  # fmt: skip
def test_bad_input_ends_with_status_2_and_a_line(finished, capsys, flags, line):
    assert run(f"--run={finished}", *flags) == cli.USER_ERROR
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(line)

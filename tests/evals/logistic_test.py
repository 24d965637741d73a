"""Logistic regression of a run's features: what it is chosen by, and what it refuses."""

import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from simclr_jax import cli
from simclr_jax import eval as evaluation
from support.runs import result, status_of

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

"""Telling transformations from features: what is known is told, what is not is guessed."""

from functools import partial

import numpy as np
import pytest
from PIL import Image

from simclr_jax import cli
from simclr_jax import eval as evaluation
from simclr_jax.errors import DivergedError
from simclr_jax.evals import transform
from simclr_jax.evals.features import Features
from support.runs import result, status_of

run = partial(status_of, evaluation.main, "--config=eval/transform")
FIT = {"classes": 2, "hidden": 16, "batch_size": 32, "seed": 0}


def test_what_no_linear_classifier_tells_is_told(rng):
    """Opposite corners of a square have the same class."""
    x = rng.normal(size=(900, 2)).astype(np.float32)
    labels = (x[:, 0] * x[:, 1] > 0).astype(np.int32)
    x = x * np.float32([1e3, 1e-3]) + np.float32([5, -2])  # of any scale
    train, test = Features(x[:600], labels[:600]), Features(x[600:], labels[600:])
    logits = transform.fit(train, lr=3e-2, epochs=8, **FIT)
    assert transform.accuracy(logits, test) > 0.9


def test_a_network_that_diverges_has_no_accuracy(rng):
    x = rng.normal(size=(64, 2)).astype(np.float32)
    with pytest.raises(DivergedError, match=r"config\.transform\.lr=1e\+38"):
        transform.fit(Features(x, np.arange(64, dtype=np.int32) % 2), lr=1e38, epochs=9, **FIT)


def test_the_mean_and_the_deviation_are_those_of_all_rows_whatever_the_blocks(rng, monkeypatch):
    monkeypatch.setattr(transform, "BLOCK", 7)
    x = rng.normal(3, 2, size=(30, 4)).astype(np.float32)
    x[:, 2] = 1
    mean, deviation = transform.spread(x)
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(deviation, [*x.std(axis=0)[:2], 1, x[:, 3].std()], rtol=1e-5)


def test_pixels_know_of_a_rotation_and_no_labels_are_needed(finished, capsys):
    flags = ["--config.transform.of=('rotation',)", "--config.features.layer=pixels"]
    flags += ["--config.data.num_classes=0", "--config.transform.epochs=20"]
    assert run(f"--run={finished}", *flags) == 0
    found = result(finished, "transform", 8, "pixels,digits,*")
    assert found["num_examples"] == 360
    assert found["guess"]["rotation"] == pytest.approx(0.25, abs=0.07)
    assert found["rotation"] > 0.6
    line = capsys.readouterr().out
    assert "rotation " in line
    assert "on 360 images of digits, layer pixels" in line


@pytest.mark.slow
def test_every_transformation_is_told_from_h_and_kept_features_are_used_again(
    finished, monkeypatch
):
    flags = [f"--run={finished}", "--config.transform.epochs=2", "--untrained"]
    assert run(*flags) == 0
    found = result(finished, "transform", "untrained", "h,digits,*")
    assert set(found["guess"]) == {"colour", "rotation", "noise", "sobel"}
    assert found["colour"] == found["guess"]["colour"]  # digits are grey already
    monkeypatch.setattr(transform.Transformed, "evaluation", None)  # computing them would fail
    assert run(*flags, "--config.transform.hidden=8") == 0


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        ("--config.transform.of=('hue',)", "config.transform.of=('hue',): must be a tuple of col"),
        ("--config.transform.of=()", "config.transform.of=(): must be a tuple of colour, rot"),
        ("--config.transform.noise_sigma=0.0", "config.transform.noise_sigma=0.0: must be above"),
    ],
)
def test_bad_input_is_refused_in_a_line(finished, capsys, flag, line):
    assert run(f"--run={finished}", flag) == cli.USER_ERROR
    assert capsys.readouterr().err.splitlines()[-1].startswith(line)


def test_too_few_images_to_train_on_are_refused(finished, tmp_path, capsys):
    for number in range(3):
        Image.new("L", (8, 8), number).save(tmp_path / f"{number}.png")
    flags = ["--config.data.name=folder", f"--config.data.dir={tmp_path}"]
    assert run(f"--run={finished}", *flags, "--config.data.eval_split=.") == cli.USER_ERROR
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("config.data.train_split='train': has too few images (3) for each of")

"""Linear evaluation on features whose answer is known."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from simclr_jax import eval as evaluation
from simclr_jax.config import overrides
from simclr_jax.data.labels import few
from simclr_jax.data.order import permutation
from simclr_jax.errors import DivergedError
from simclr_jax.evals import linear
from simclr_jax.evals.features import Features
from simclr_jax.evals.task import Task
from support.runs import status_of


@pytest.fixture
def task(blobs):
    """A function from other keys to a task on the features, without any images."""
    train, test = blobs

    def make(*flags):
        config = overrides.load(["--config=eval/linear", "--config.linear.epochs=20", *flags])
        return SimpleNamespace(
            check_labels=lambda: None, check_examples=lambda train, test: None,
            config=config, validation=None,
            train=SimpleNamespace(num_classes=5, split="train"), test=None,
            features=lambda source: test if source is None else train, tested=lambda test: {},
        )  # fmt: skip

    return make


def test_of_several_settings_validation_chooses_and_the_result_is_that_of_the_one(task, caplog):
    rates, decays = "--config.linear.lr=0.1,1e4,0.02", "--config.linear.weight_decay=0,0.2"
    found = linear.run(task(rates, decays))
    tried = {(each["lr"], each["weight_decay"]): each["top1"] for each in found["tried"]}
    assert list(tried) == [(0.1, 0), (0.1, 0.2), (1e4, 0), (1e4, 0.2), (0.02, 0), (0.02, 0.2)]
    chosen = found["lr"], found["weight_decay"]
    assert tried[chosen] == max(each for each in tried.values() if each is not None)
    assert tried[1e4, 0.2] is None
    assert "config.linear.lr=10000.0, config.linear.weight_decay=0.2, and is left" in caplog.text
    assert found["diverged"] == list(tried.values()).count(None)
    assert found["validation"] == "31 held out of train by seed 0"
    alone = (f"--config.linear.{key}={found[key]}" for key in ("lr", "weight_decay"))
    assert linear.run(task(*alone)).items() <= found.items()


@pytest.mark.parametrize(
    ("rates", "of", "others"), [("1e4", 12, ""), ("1e4,1e5", 11, ", and so have all 2 settings")]
)
def test_where_all_diverge_there_is_no_accuracy_but_a_line_with_the_rate(task, rates, of, others):
    line = (
        rf"the classifier has diverged \(a loss of .* after update {of} of {of}\) with "
        r"config\.linear\.lr=10000\.0, config\.linear\.weight_decay=0\.1"
        rf"{others}; lower one of them"
    )
    with pytest.raises(DivergedError, match=line):
        linear.run(task(f"--config.linear.lr={rates}", "--config.linear.weight_decay=0.1"))


def test_a_rate_that_is_too_high_is_warned_of(task, blobs, rng, caplog):
    blobs[0].labels[:] = rng.permutation(blobs[0].labels)
    linear.run(task("--config.linear.lr=100"))
    assert "more than the 1.61 of guessing" in caplog.text


def test_few_labels_report_every_draw(blobs, mesh8):
    train, test = blobs
    options = {"classes": 5, "per_class": 3, "draws": 4, "c": 0.1, "mesh": mesh8}
    results = linear.few_labels(train, test, seed=0, **options)
    assert len(results) == 4
    assert results == linear.few_labels(train, test, seed=0, **options)
    assert results != linear.few_labels(train, test, seed=1, **options)
    assert np.mean([result["top1"] for result in results]) > 0.5
    with pytest.raises(ValueError, match="at most"):
        linear.few_labels(train, test, seed=0, **{**options, "per_class": 200})


@pytest.mark.parametrize("classes", [5, 2])
def test_few_labels_are_learned_as_scikit_learn_does(blobs, mesh8, classes):
    """The features are standardised by all training images, and classified right as often."""
    train, test = (Features(each.x, each.labels % classes) for each in blobs)
    options = {"classes": classes, "per_class": 4, "c": 0.1, "seed": 0}
    found = linear.few_labels(train, test, draws=2, mesh=mesh8, **options)
    scale = StandardScaler().fit(train.x).transform
    for draw, each in enumerate(found):
        order = permutation(len(train.x), seed=0, stream=draw)
        rows = few(train.labels, np.full(classes, 4), order)
        model = LogisticRegression(C=0.1).fit(scale(train.x[rows]), train.labels[rows])
        assert each["top1"] == pytest.approx(model.score(scale(test.x), test.labels))


def test_few_labels_are_scaled_by_all_features_however_few_are_read_at_a_time(
    blobs, mesh8, monkeypatch
):
    train, test = blobs
    train.x[:7] += 100
    options = {"classes": 5, "per_class": 3, "draws": 4, "c": 0.1, "seed": 0, "mesh": mesh8}
    whole = linear.few_labels(train, test, **options)
    monkeypatch.setattr(linear, "FIT_BYTES", 7 * train.x[0].nbytes)
    assert linear.few_labels(train, test, **options) == whole


def test_too_few_labels_are_named_before_anything_is_computed(finished, capsys, monkeypatch):
    monkeypatch.setattr(Task, "features", None)
    flags = ["--config=eval/linear", f"--run={finished}", "--config.linear.labels_per_class=133"]
    assert status_of(evaluation.main, *flags) == 2
    line = "config.linear.labels_per_class=133: must be at most 132, the examples of class '9'"
    assert capsys.readouterr().err.splitlines()[-1] == line

"""The run's own classifier: what it predicts, and how often that is right."""

from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn import metrics

from simclr_jax import cli
from simclr_jax import eval as evaluation
from simclr_jax.evals.classifier import Scores, softmax
from support.runs import result, status_of

run = partial(status_of, evaluation.main, "--config=eval/classifier")


def test_scores_are_those_of_scikit_learn(rng):
    logits, labels = rng.normal(size=(50, 4)), rng.integers(0, 3, 50)  # the last class is empty
    scores = Scores(4)
    scores.add(logits[:20], labels[:20])
    scores.add(np.r_[logits[20:], logits[:1]], np.r_[labels[20:], -1])
    found, predicted = scores.result(), logits.argmax(axis=1)
    np.testing.assert_array_equal(
        found["confusion"], metrics.confusion_matrix(labels, predicted, labels=range(4))
    )
    recall = metrics.recall_score(labels, predicted, labels=range(3), average=None)
    assert found["per_class"] == [*recall.tolist(), None]
    assert found["empty_classes"] == 1
    assert found["mean_per_class"] == pytest.approx(recall.mean())
    assert found["top1"] == metrics.accuracy_score(labels, predicted)


def test_each_image_has_its_prediction_and_the_result_counts_them(finished, capsys):
    assert run(f"--run={finished}") == 0
    found = result(finished, "classifier", 8, "logits,digits")
    assert (found["split"], found["num_examples"]) == ("test", 360)
    assert found["class_names"] == list("0123456789")
    table = pq.read_table(found["files"][0]).to_pydict()
    assert list(table) == ["split", "name", "label", "prediction", "probability"]
    right = np.equal(table["label"], table["prediction"])
    assert right.mean() == found["top1"]
    assert np.trace(found["confusion"]) == right.sum()
    assert np.sum(found["confusion"], axis=1).tolist() == np.bincount(table["label"]).tolist()
    assert table["name"][:2] == ["test/0", "test/1"]
    assert 0.1 <= min(table["probability"]) <= max(table["probability"]) <= 1
    listed = (finished / "eval/results.jsonl").read_text()
    assert "top1" in listed
    assert "confusion" not in listed  # of a thousand classes it has a million numbers
    assert "on 360 images of digits, layer logits" in capsys.readouterr().out


def test_probabilities_are_of_any_logits():
    np.testing.assert_allclose(
        softmax(np.float32([[1e4, 0], [0, np.log(3)]])), [[1, 0], [0.25, 0.75]]
    )


@pytest.fixture
def folder(tmp_path):
    """(folder, flags) of images, one a class, after the names of the classes."""

    def make(*names):
        for number, name in enumerate(names):
            path = tmp_path / "images" / name / "a.png"
            path.parent.mkdir(parents=True)
            Image.new("L", (8, 8), 20 * number).save(path)
        return ["--config.data.name=folder", f"--config.data.dir={tmp_path}/images",
                "--config.classifier.split=train", "--config.data.eval_split=."]  # fmt: skip

    return make


def test_images_without_labels_have_predictions_alone_if_that_is_asked_for(finished, capsys):
    flags = ["--config.data.num_classes=0", "--config.classifier.split=all"]
    assert run(f"--run={finished}", *flags) == 0
    found = result(finished, "classifier", 8, "logits,digits,split=all,data.num_classes=0")
    assert "top1" not in found
    columns = pq.read_table(found["files"][0])
    assert columns.column_names == ["split", "name", "prediction", "probability"]
    assert len(columns) == found["num_examples"] == 1797
    assert "predictions for 1797 images of digits, layer logits" in capsys.readouterr().out


def test_other_classes_are_refused_by_their_names(finished, folder, capsys):
    assert run(f"--run={finished}", *folder(*"012345678x")) == cli.USER_ERROR
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("config.data.name='folder': 'train' has other classes than the run's")
    assert "has 'x', which the run has not, and lacks '9'" in line


def test_another_number_of_classes_is_refused(finished, folder, capsys):
    assert run(f"--run={finished}", *folder("0", "1", "2")) == cli.USER_ERROR
    assert "has 3 classes, and the run's classifier 10" in capsys.readouterr().err


def test_images_without_labels_are_refused_where_they_are_to_be_scored(finished, tmp_path, capsys):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    Image.new("L", (8, 8), 9).save(tmp_path / "b.png")
    flags = ["--config.data.name=folder", f"--config.data.dir={tmp_path}"]
    assert run(f"--run={finished}", *flags, "--config.classifier.split=all") == cli.USER_ERROR
    assert "set config.data.num_classes=0 for the predictions alone" in capsys.readouterr().err


def test_a_layer_other_than_the_classifiers_outputs_is_refused(finished, capsys):
    assert run(f"--run={finished}", "--config.features.layer=h") == cli.USER_ERROR
    assert "config.features.layer='h': must be one of logits" in capsys.readouterr().err

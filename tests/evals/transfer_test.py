"""Transfer: the paper's datasets, what is chosen by which metric, and a grid that is stopped."""

import io
import json
from functools import partial

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score

from simclr_jax import cli
from simclr_jax import eval as evaluation
from simclr_jax import mesh as meshes
from simclr_jax.config import overrides
from simclr_jax.data import tfds_keys
from simclr_jax.data.digits import Digits
from simclr_jax.data.readable import Readable
from simclr_jax.data.tfds_labels import SeveralLabels
from simclr_jax.evals import finetuning
from simclr_jax.evals.grid import Point
from simclr_jax.evals.metrics import METRICS
from simclr_jax.evals.task import Task
from simclr_jax.run.network import Network
from simclr_jax.store.checkpoint import Reader
from support.runs import KilledError, status_of

run = partial(status_of, evaluation.main)
LINEAR = ["--config=eval/transfer", "--config.features.layer=pixels"]
TUNED = [
    "--config=eval/transfer:method=finetune",
    "--config.data.train_split=train",
    "--config.transfer.steps=3",
    "--config.transfer.batch_size=64",
    "--config.transfer.lr_count=2",
]
GRID = [
    *TUNED,
    "--config.transfer.lr_range=(0.01,0.1)",
    "--config.transfer.decay_range=(0.001,0.001)",
    "--config.transfer.decay_count=1",
]


NAMES = "food cifar10 cifar100 birdsnap sun397 cars aircraft voc2007 dtd pets caltech101 flowers"


def rows():
    """The config of each of the paper's datasets by its name, in the order of Table 8."""
    record = "--config=eval/transfer:dataset="
    return {name: overrides.load([f"{record}{name}"]) for name in NAMES.split()}


def test_each_of_the_papers_datasets_is_one_that_tfds_has_or_a_folder(tmp_path):
    of_metric = {"top1": set(), "mean_per_class": set(), "map11": set()}
    for name, config in rows().items():
        of_metric[config.transfer.metric].add(name)
        if config.data.name != "folder":
            info = tfds.builder(config.data.name, data_dir=str(tmp_path)).info
            image = tfds_keys.image_key(name, info, config.data.image_key)
            assert isinstance(info.features[image], tfds.features.Image)
            label = tfds_keys.label(name, info, config.data.label_key)
            assert isinstance(label, SeveralLabels) == (config.transfer.metric == "map11")
            assert tfds_keys.classes_of(info, label.keys[0]).num_classes >= 10
    assert of_metric == {
        "top1": {"food", "cifar10", "cifar100", "birdsnap", "sun397", "cars", "dtd"},
        "mean_per_class": {"aircraft", "pets", "caltech101", "flowers"},
        "map11": {"voc2007"},
    }
    assert set(of_metric) == set(METRICS)


def test_the_defaults_are_the_papers():
    config = rows()["flowers"]
    assert (config.transfer.l2_range, config.transfer.l2_count) == ((1e-6, 1e5), 45)
    assert config.features.crop == 1.0  # Resized to 224 on the shorter side, then cropped.
    tuned = overrides.load(["--config=eval/transfer:method=finetune"])
    assert (tuned.transfer.steps, tuned.transfer.batch_size) == (20000, 256)
    assert tuned.features.crop == 0.875  # 224 of 256 px.
    random = overrides.load(["--config=eval/transfer:method=finetune,start=random"])
    assert (random.transfer.steps, random.transfer.lr_range) == (40000, (1e-3, 1.0))


def _digits(split):
    """The pixels (n, F) of a split of the digits, and the labels."""
    images, labels = Digits(split).load(range(len(Digits(split))))
    pixels = [np.asarray(Image.open(io.BytesIO(each)).convert("RGB")) / 255 for each in images]
    return np.stack(pixels).reshape(len(pixels), -1), labels


@pytest.mark.slow
def test_linear_transfer_is_scikit_learns_logistic_regression(finished, tmp_path, capsys):
    flags = ["--config.transfer.l2_count=1", "--config.transfer.l2_range=(0.1,0.1)"]
    flags += ["--config.transfer.metric=mean_per_class", f"--to={tmp_path}"]
    assert run(*LINEAR, f"--run={finished}", *flags) == 0
    (path,) = (tmp_path / "transfer/8").glob("*/result.json")
    found = json.loads(path.read_text())
    (x, y), (test_x, test_y) = (_digits(split) for split in ("train", "test"))
    model = LogisticRegression(C=10, max_iter=5000).fit(x, y)
    expected = recall_score(test_y, model.predict(test_x), average="macro")
    assert found["mean_per_class"] == pytest.approx(expected, abs=0.005)
    assert (found["method"], found["metric"]) == ("linear", "mean_per_class")
    line = capsys.readouterr().out
    assert "mean per class 9" in line
    assert run("--list", f"--to={tmp_path}") == 0
    assert line.split("  (")[0].partition(": ")[2] in capsys.readouterr().out


@pytest.fixture
def trained(monkeypatch):
    """The names of the points that are trained; at the number `.until` a training is stopped."""
    real, names = finetuning.FineTuning.train, []

    def train(self, source, point):
        if len(names) == train.until:
            raise KilledError
        names.append(point.name)
        return real(self, source, point)

    train.until, train.names = None, names
    monkeypatch.setattr(finetuning.FineTuning, "train", train)
    return train


def _content(folder):
    """The result of fine-tuning, without what it is of."""
    (path,) = (folder / "transfer/8").glob("*/result.json")
    return {key: value for key, value in json.loads(path.read_text()).items() if key != "of"}


@pytest.mark.slow
def test_a_grid_goes_on_where_it_was_stopped_and_commands_can_share_it(
    finished, tmp_path, trained, capsys
):
    def at(folder, *flags):
        return run(*GRID, f"--run={finished}", f"--to={tmp_path}/{folder}", *flags)

    assert at("whole") == 0
    assert len(trained.names) == 5  # The four points, and the best one with all images.
    assert trained.names[-1] in trained.names[:4]
    whole = _content(tmp_path / "whole")
    assert (whole["points"], whole["diverged"], len(whole["tried"])) == (4, 0, 4)
    best = max(whole["tried"], key=lambda each: (each["value"], -each["loss"]))
    assert (whole["lr"], whole["decay"]) == (best["lr"], best["decay"])

    trained.names.clear()
    trained.until = 2
    with pytest.raises(KilledError):
        at("stopped")
    trained.until = None
    assert at("stopped") == 0
    assert len(trained.names) == 5  # None of the points was trained twice.
    assert _content(tmp_path / "stopped") == whole

    capsys.readouterr()
    assert at("shared", "--config.transfer.share=(1,2)") == 0
    assert "2 of 4 points are not computed yet" in capsys.readouterr().out
    assert not list((tmp_path / "shared/transfer/8").glob("*/result.json"))
    assert at("shared", "--config.transfer.share=(0,2)") == 0
    assert _content(tmp_path / "shared") == whole


@pytest.mark.slow
def test_a_point_that_diverges_is_counted_and_never_chosen(finished, tmp_path, capsys):
    flags = [*TUNED, f"--run={finished}", f"--to={tmp_path}", "--config.transfer.decay_count=0"]
    assert run(*flags, "--config.transfer.lr_range=(0.01,1e30)") == 0
    found = _content(tmp_path)
    assert (found["lr"], found["diverged"]) == (0.01, 1)
    assert found["tried"][1]["value"] is None
    assert "lr 0.01 without decay, of 2 points" in capsys.readouterr().out

    assert run(*flags, "--config.transfer.lr_range=(1e30,1e31)") == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "all 2 fine-tunings have diverged; lower config.transfer.lr_range" in line


@pytest.mark.slow
def test_several_labels_an_image_are_transferred_to_by_voc_s_metric(finished, tmp_path, scenes):
    of = ["--config.data.name=scenes", f"--config.data.dir={scenes}"]
    of += ["--config.data.label_key=labels", "--config.transfer.metric=map11"]
    where = [f"--run={finished}", f"--to={tmp_path}", *of]
    assert run(*LINEAR, *where, "--config.transfer.l2_count=3") == 0
    few = ["--config.transfer.batch_size=8", "--config.transfer.decay_count=0"]
    assert run(*TUNED, *where, *few, "--config.transfer.steps=60") == 0
    results = [json.loads(path.read_text()) for path in tmp_path.glob("transfer/8/*/result.json")]
    linear, tuned = (next(r for r in results if r["method"] == m) for m in ("linear", "finetune"))
    assert linear["validation"] == tuned["validation"] == "24 of validation"
    assert linear["num_examples"] == tuned["num_examples"] == 40
    # Every class is in about half of the images.
    assert linear["map11"] > 0.8
    assert tuned["map11"] > 0.7


@pytest.mark.slow
def test_an_update_is_nesterovs_with_the_papers_decay(finished, monkeypatch):
    """Against a plain loop over the gradients of the objective."""
    config = overrides.load([*TUNED, "--config.transfer.steps=2"])
    task = Task(config, Network.trained(Reader(epath.Path(finished)), 8), None)
    tuning, batches = finetuning.FineTuning(task), []
    put = meshes.put

    def kept(batch, mesh):
        batches.append(put(batch, mesh))
        return batches[-1]

    monkeypatch.setattr(meshes, "put", kept)
    found = tuning.train(Readable(Digits("train"), on_bad_image="error"), Point(0.1, 0.01))

    first, objective = tuning._first, tuning._objective
    params, stats = flatten_dict(first.params), first.batch_stats
    velocity = dict.fromkeys(params, 0.0)
    for batch, lr in zip(batches, (0.1, 0.05), strict=True):  # Half a cosine, of two steps.
        gradients, stats, _ = objective(unflatten_dict(params), stats, batch)
        for path, gradient in flatten_dict(gradients).items():
            if path[0] == "head":  # The classifier sits on h.
                continue
            decayed = not ("bn" in path[-2] and path[-1] in ("scale", "bias"))
            gradient = gradient + decayed * 0.01 / 0.1 * params[path]
            velocity[path] = 0.9 * velocity[path] - lr * gradient
            params[path] = params[path] + 0.9 * velocity[path] - lr * gradient
    close = partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-5)
    jax.tree.map(close, found["params"], unflatten_dict(params))
    jax.tree.map(close, found["batch_stats"], stats)  # 22 steps an epoch: a momentum of 0.9.


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--config=eval/transfer:dataset=birds"], "'dataset=birds': must be one of food, cifar10"),
        (["--config=eval/transfer:method=lars"], "'method=lars': must be one of linear, finetune"),
        ([*TUNED, "--config.transfer.share=(2,2)"], "config.transfer.share=(2, 2): must be two"),
        ([*LINEAR, "--config.transfer.metric=map11"], "config.transfer.metric='map11': must be ma"),
        ([*TUNED, "--config.transfer.metric=top5"], "config.transfer.metric='top5': must be one"),
        ([*TUNED, "--config.transfer.batch_size=2048"], "config.transfer.batch_size=2048: must be"),
        ([*TUNED, "--config.transfer.batch_size=60"], "config.transfer.batch_size=60: must be a"),
        ([*TUNED, "--config.transfer.lr_range=(1.0,0.1)"], "config.transfer.lr_range=(1.0, 0.1):"),
        ([*TUNED, "--config.features.layer=z"], "config.features.layer='z': must be h or headK"),
        ([*TUNED, "--config.transfer.microbatches=3"], "config.transfer.microbatches=3: must"),
        ([*LINEAR, "--config.data.num_classes=0"], "config.data.train_split='train': transfer"),
        ([*LINEAR, "--config.features.crop=0.0"], "config.features.crop=0.0: must be above 0"),
    ],
)  # fmt: skip
def test_bad_input_ends_with_status_2_and_a_line(finished, capsys, flags, line):
    assert run(f"--run={finished}", *flags) == cli.USER_ERROR
    assert line in capsys.readouterr().err.strip().splitlines()[-1]

"""Whole runs in processes of their own, on real images: slow."""

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from simclr_jax.store.rows import read_rows
from support.commands import finished, start
from support.runs import result, rows

pytestmark = pytest.mark.slow

TINY = [
    "--config=digits",
    "--config.model.width=0.0625",
    "--config.train.batch_size=64",  # an epoch ends at step 22
    "--config.train.steps=40",
    "--config.log.every_steps=1",
    "--config.checkpoint.every_steps=5",
    "--config.eval.every_steps=20",
    "--config.optim.warmup_epochs=0.1",
]


def run(name, *argv):
    """The stdout and the stderr of a command, on one device: what a laptop has."""
    return finished(start("-m", f"simclr_jax.{name}", *argv, optimize=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of 40 steps."""
    workdir = tmp_path_factory.mktemp("whole")
    run("train", *TINY, f"--workdir={workdir}")
    return workdir


def test_the_same_seed_gives_the_same_metrics_in_a_fresh_process(whole, tmp_path):
    run("train", *TINY, f"--workdir={tmp_path}")
    assert rows(tmp_path) == rows(whole)
    assert len(rows(whole)) == 40


def test_the_main_command_reaches_what_the_readme_says(tmp_path):
    """Ten labels a class, five draws: SimCLR against raw pixels and the untrained encoder."""
    workdir = tmp_path / "digits"
    out, _ = run("train", "--config=digits", f"--workdir={workdir}")
    assert "eval top-1" in out.splitlines()[-3]

    def top1(*options, name):
        run(
            "eval", "--config=eval/linear", f"--run={workdir}",
            "--config.linear.labels_per_class=10", "--config.linear.draws=5", *options,
        )  # fmt: skip
        layer = "pixels" if options and "pixels" in options[0] else "h"
        return result(workdir, "linear", name, f"{layer},digits,labels_per_class=10")["top1"]

    step = read_rows(workdir / "metrics.jsonl")[-1]["step"]
    assert top1(name=step) >= 0.93
    assert top1("--config.features.layer=pixels", name=step) == pytest.approx(0.9, abs=0.02)
    assert 0.1 < top1("--untrained", name="untrained") < 0.5


def test_a_folder_of_jpegs_with_broken_ones_pretrains_and_evaluates(tmp_path):
    rng = np.random.default_rng(0)
    images = tmp_path / "my images"
    for k in range(120):
        label = ["chats noirs", "été 夏"][k % 2]
        path = images / label / f"photo {k} ñ.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        texture = rng.integers(0, 255, (8, 8, 3)) // (1 + k % 2) + 60 * (k % 2)
        pixels = tf.image.resize(texture.astype(np.float32), (40 + k % 9, 56), method="nearest")
        path.write_bytes(tf.io.encode_jpeg(tf.cast(pixels, tf.uint8)).numpy())
    broken = sorted(images.rglob("*.jpg"))[3::25]
    assert len(broken) == 5
    for number, path in enumerate(broken):
        data = path.read_bytes()
        path.write_bytes(
            [b"", data[:200], b"no image", data[: len(data) // 2], b"\xff\xd8"][number]
        )
    workdir = tmp_path / "run"
    out, err = run(
        "train", "--config=folder", f"--workdir={workdir}",
        f"--config.data.dir={images}", "--config.data.image_size=32",
        "--config.model.width=0.125", "--config.train.batch_size=32", "--config.train.steps=12",
    )  # fmt: skip
    unreadable = [line for line in err.splitlines() if "unreadable image left out" in line]
    assert len(unreadable) == len(set(unreadable))
    assert {path.name for path in broken} >= {
        name for line in unreadable for name in [line.split("/")[-1].split("'")[0]]
    }
    assert "unreadable images were replaced" in out
    run("eval", "--config=eval/knn", f"--run={workdir}")
    found = result(workdir, "knn", 12, "h,folder")
    assert found["num_examples"] + found["unreadable"] == 12


needs_tfds = pytest.mark.skipif(
    not Path(os.environ.get("TFDS_DATA_DIR", "nowhere"), "cifar10").exists(),
    reason="TFDS_DATA_DIR holds no prepared cifar10",
)


@needs_tfds
def test_cifar10_learns_more_than_its_untrained_self(tmp_path):
    """A small ResNet on a subset: nearest neighbours, in a minute or two."""
    run(
        "train", "--config=cifar10:recipe=small_batch", f"--workdir={tmp_path}",
        "--config.data.train_split=train[:5000]", "--config.data.eval_split=test[:1000]",
        "--config.model.width=0.125", "--config.train.batch_size=64",
        "--config.train.steps=150", "--config.optim.warmup_epochs=0.5",
        "--config.augment.crop_area=(0.2,1.0)",
    )  # fmt: skip
    for options in ([], ["--untrained"]):
        run("eval", "--config=eval/knn", f"--run={tmp_path}", *options)
    trained, untrained = (
        result(tmp_path, "knn", name, "h,cifar10")["top1"] for name in (150, "untrained")
    )
    assert trained > untrained + 0.05


@needs_tfds
def test_photographs_train_below_the_loss_of_chance(tmp_path):
    """imagenette224, ArrayRecord, blur in the step."""
    run(
        "train", "--config=imagenet:depth=18,width=0.25", f"--workdir={tmp_path}",
        "--config.data.name=imagenette224", "--config.data.image_size=64",
        "--config.data.train_split=train[:1000]", "--config.data.eval_split=validation[:100]",
        "--config.model.dtype=float32", "--config.train.batch_size=64",
        "--config.train.steps=120", "--config.optim.lr_scaling=sqrt",
        "--config.optim.lr=0.2", "--config.optim.warmup_epochs=1",
        "--config.loss.temperature=0.5", "--config.log.every_steps=10",
    )  # fmt: skip
    last = [row["contrastive_loss"] for row in rows(tmp_path)[-5:]]
    assert np.mean(last) < 2 * np.log(2 * 64 - 1) - 0.5

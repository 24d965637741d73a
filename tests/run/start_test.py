"""What a run takes of another one, and what it does not."""

import shutil

import chex
import jax
import numpy as np
import pytest

from simclr_jax import state as states
from simclr_jax import train, verify
from simclr_jax.config import overrides, parts
from simclr_jax.run import start
from simclr_jax.run.network import Network
from simclr_jax.store import checkpoint
from support.runs import TINY, rows, saved_digests, status_of

CONFIG = overrides.changed(
    overrides.load(["--config=digits", "--config.data.image_size=8"]), {"data.num_classes": 10}
)
OURS = {
    ("params", "encoder", "stem_conv", "kernel"): (3, 3, 3, 4),
    ("params", "encoder", "group1_block1", "conv1", "kernel"): (3, 3, 4, 4),
    ("batch_stats", "encoder", "stem_bn", "mean"): (4,),
    ("params", "head", "dense1", "kernel"): (32, 32),
    ("params", "classifier", "dense", "kernel"): (32, 10),
}


def with_shape(name, shape):
    """The shapes of OURS, but for the array whose path has this name."""
    return {path: shape if name in path else own for path, own in OURS.items()}


def test_what_has_the_same_name_and_shape_is_taken_and_the_rest_is_named():
    theirs = with_shape("head", (32, 64)) | {("params", "head", "dense2", "kernel"): (32, 8)}
    taken = start.fitting_paths(OURS, theirs, classifier=False)
    assert taken == list(OURS)[:3]
    line = start.in_words(OURS, theirs, taken, step=100, classifier="10 classes here, 1000 there")
    assert line == (
        "3 arrays taken from step 100; left as initialised: classifier (10 classes here, 1000 "
        "there), head/dense1; not used: head/dense2"
    )
    everything = start.fitting_paths(OURS, OURS, classifier=True)
    assert start.in_words(OURS, OURS, everything, step=4, classifier=None) == (
        "5 arrays taken from step 4"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.depth": 50}, "model.depth=50 there and 18 here"),
        ({"model.width": 1.0}, "model.width=1.0 there and 0.25 here"),
        # Of a ResNet-18, selective kernels change the stem alone.
        ({"model.sk_ratio": 0.0625}, "model.sk_ratio=0.0625 there and 0.0 here"),
        ({"model.se_ratio": 0.25}, "model.se_ratio=0.25 there and 0.0 here"),
        ({"model.stem": "imagenet", "data.image_size": 224}, ""),
        ({"model.stem": "imagenet"}, "model.stem=imagenet there and auto here"),
        ({"model.stem": "small"}, ""),  # The same as auto.
        ({"model.head_layers": 2, "model.head_dim": 64}, ""),
    ],
)  # fmt: skip
def test_another_encoder_is_told_and_another_stem_with_other_views_is_none(changes, said):
    assert start.other_encoder(CONFIG, overrides.changed(CONFIG, changes)) == said


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"data.num_classes": 1000}, "10 classes here, 1000 there"),
        ({"data.num_classes": 0}, "10 classes here, none there"),
        ({"model.classifier_layer": "head1"}, "on h here, on head1 there"),
        ({"objective.name": "supervised"}, "trained by objective.name=supervised there"),
        ({"data.name": "cifar10"}, "of cifar10 there"),
    ],
)  # fmt: skip
def test_a_classifier_is_taken_where_it_has_learned_the_same(changes, reason):
    assert start.classifier_reason(CONFIG, overrides.changed(CONFIG, changes)) == reason


DIGITS = [*"0123456789"]


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (DIGITS, None),
        (None, None),  # As of a dataset whose classes have no names: their number counts.
        (DIGITS[::-1], "classifier (the same classes in another order there)"),
        ([*"abcdefghij"], "classifier (other classes, such as '0' there)"),
    ],
)
def test_a_classifier_is_not_taken_of_classes_with_other_names(finished, mesh8, classes, said):
    config = overrides.load([*TINY, f"--config.init.run={finished}"])
    config = overrides.changed(config, {"data.num_examples": 1437, "data.num_classes": 10})
    origin = start.Origin.fitting(config, parts.build(config, mesh8), classes)
    taken = ("params", "classifier", "dense", "kernel") in origin.taken
    assert taken == (said is None)
    assert (said or "arrays taken from step 8") in origin.in_words


def test_the_first_convolution_is_not_taken_of_other_channels(finished, mesh8):
    config = overrides.load([*TINY, f"--config.init.run={finished}", "--config.data.channels=5"])
    config = overrides.changed(config, {"data.num_examples": 1437, "data.num_classes": 10})
    origin = start.Origin.fitting(config, parts.build(config, mesh8), None)
    assert "left as initialised: encoder/stem_conv" in origin.in_words
    assert origin.in_words.endswith("; its images have 3 channels, and these 5")


SUPERVISED = [
    *TINY, "--config.objective.name=supervised", "--config.model.head_layers=2",
    "--config.optim.name=momentum", "--config.checkpoint.every_steps=2",
    "--config.train.frozen=stage1",
]  # fmt: skip


def run(workdir, source, *flags):
    """The exit status of a supervised run of 4 steps that starts from another run."""
    flags = ["--config.train.steps=4", f"--config.init.run={source}", *flags]
    return status_of(train.main, *SUPERVISED, *flags, f"--workdir={workdir}")


@pytest.mark.slow
def test_a_run_starts_from_another_goes_on_without_it_and_is_replayed(finished, tmp_path, capsys):
    """The head's last layer has another width in it, and the classifier is a new one."""
    source = shutil.copytree(finished, tmp_path / "source")
    assert run(tmp_path / "whole", source) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "init.run=" in line)
    assert line.endswith(
        "taken from step 8; left as initialised: classifier (trained by objective.name=contrastive "
        "there), head/bn2, head/dense2; not used: head/bn3, head/dense3"
    )
    config = checkpoint.Reader(tmp_path / "whole").config(4)["config"]
    assert config["init"] == {"run": str(source), "step": 8}
    assert status_of(verify.main, f"--run={tmp_path}/whole", "--step=1", "--steps=4") == 0
    assert "bit for bit" in capsys.readouterr().out
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/checkpoints/4")
    shutil.rmtree(source)
    assert run(tmp_path / "cut", source) == 0
    assert "resumed from step 2" in capsys.readouterr().out
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert saved_digests(tmp_path / "cut", 4) == saved_digests(tmp_path / "whole", 4)


def test_the_first_state_has_the_weights_of_the_checkpoint_and_the_seeds_where_they_do_not_fit(
    finished, mesh8, capsys
):
    config = overrides.load([*SUPERVISED, f"--config.init.run={finished}", "--config.init.step=4"])
    config = overrides.changed(config, {"data.num_examples": 1437, "data.num_classes": 10})
    built = parts.build(config, mesh8)
    state = start.first_state(config, built)
    theirs = Network.trained(checkpoint.Reader(finished), 4).variables
    own = states.on_mesh(built.initial, mesh8)
    chex.assert_trees_all_equal(state.params["encoder"], theirs["params"]["encoder"])
    chex.assert_trees_all_equal(state.batch_stats["encoder"], theirs["batch_stats"]["encoder"])
    chex.assert_trees_all_equal(state.params["classifier"], own.params["classifier"])
    chex.assert_trees_all_equal(state.params["head"]["dense2"], own.params["head"]["dense2"])
    chex.assert_trees_all_equal(state.opt_state, own.opt_state)
    stem = state.params["encoder"]["stem_conv"]["kernel"]
    assert not np.array_equal(stem, own.params["encoder"]["stem_conv"]["kernel"])
    assert jax.tree.structure(state) == jax.tree.structure(own)
    assert "arrays taken from step 4; left as" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--config.init.run=nowhere"], "config.init.run=nowhere: no run there"),
        (["--config.init.step=5"], "config.init.step=5: {} has checkpoints 4, 8"),
        (["--config.model.width=0.125"], "config.init.run={}: holds another encoder (model.w"),
        (["--config.init.run=None", "--config.init.step=4"], "config.init.step=4: must be None wi"),
    ],
)  # fmt: skip
def test_a_run_that_cannot_be_started_from_is_named_before_anything_is_made(
    finished, tmp_path, capsys, flags, said
):
    assert run(tmp_path / "run", finished, *flags) == 2
    assert said.format(finished) in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "run").exists()

"""A run's network, to be used: as it was saved, or as it began with statistics of real images."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simclr_jax import mesh as meshes
from simclr_jax.config import sources
from simclr_jax.data import pipeline
from simclr_jax.errors import UserError
from simclr_jax.run.network import Network, calibrate, find_step, open_run
from simclr_jax.store import checkpoint


@pytest.mark.slow
def test_a_trained_network_is_its_checkpoints_and_an_untrained_one_the_initial_one(finished):
    trained = Network.trained(checkpoint.Reader(finished), 8)
    untrained = Network.untrained(trained.config, images=trained.config)
    assert (trained.name, trained.step) == ("8", 8)
    assert (untrained.name, untrained.step) == ("untrained", None)
    chex.assert_trees_all_equal_shapes_and_dtypes(trained.variables, untrained.variables)
    blank = jnp.zeros((2, 8, 8, 3))
    key = jax.random.key(trained.config.seed)
    initial = jax.jit(lambda: trained.model.init(key, blank, train=False))()
    chex.assert_trees_all_equal(untrained.variables["params"], initial["params"])
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(trained.variables["params"], initial["params"], rtol=1e-3)


def test_calibration_measures_the_training_images(finished):
    """The first convolution's statistics are moments of what it computes, over whole batches."""
    network = Network.trained(checkpoint.Reader(finished), 8)
    source = sources.open_split(network.config, "eval")
    calibrated = calibrate(
        network.model, network.variables, source, batch_size=360, image_size=8,
        transfer_dtype="float32", mesh=meshes.make(),
    )  # fmt: skip
    images = np.concatenate(
        [b["image"] for b in pipeline.eval_batches(
            source, batch_size=360, rows=np.arange(360), image_size=8, transfer_dtype="float32")]
    )  # fmt: skip
    out = jax.lax.conv_general_dilated(
        jnp.asarray(images), network.variables["params"]["encoder"]["stem_conv"]["kernel"],
        (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    stem = calibrated["batch_stats"]["encoder"]["stem_bn"]
    np.testing.assert_allclose(stem["mean"], out.mean(axis=(0, 1, 2)), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(stem["var"], out.var(axis=(0, 1, 2)), rtol=1e-3)


@pytest.mark.slow
def test_running_statistics_are_calibrated_like_any_others(finished):
    """The same images give the same statistics, however training normalises."""
    network = Network.trained(checkpoint.Reader(finished), 8)
    source = sources.open_split(network.config, "eval")

    def of(model):
        return calibrate(
            model, network.variables, source, batch_size=64, image_size=8,
            transfer_dtype="uint8", mesh=meshes.make(),
        )["batch_stats"]  # fmt: skip

    chex.assert_trees_all_equal(of(network.model.clone(running_norm=True)), of(network.model))


def test_a_run_is_a_folder_with_a_config(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").touch()
    monkeypatch.chdir(tmp_path)
    assert open_run("run") == tmp_path / "run"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_run("~/run") == tmp_path / "run"
    with pytest.raises(UserError, match="--run: required"):
        open_run(None)
    with pytest.raises(UserError, match=r"--run=\.: no run there \(no config\.json\)"):
        open_run(".")


def test_the_step_that_is_asked_for_or_else_the_newest(finished, tmp_path):
    reader = checkpoint.Reader(finished)
    assert find_step(reader, "RUN", None) == 8
    assert find_step(reader, "RUN", 4) == 4
    with pytest.raises(UserError, match="--step=3: RUN has checkpoints 4, 8"):
        find_step(reader, "RUN", 3)
    with pytest.raises(UserError, match="--run=RUN: has no checkpoint yet"):
        find_step(checkpoint.Reader(tmp_path), "RUN", None)

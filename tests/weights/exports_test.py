"""What is exported computes what we compute, in the framework that it is for."""

import chex
import jax
import numpy as np
import pytest

from simclr_jax.weights import exports, formats
from support.networks import NETWORKS, exported, images_of


@pytest.mark.parametrize("name", ["basic-small", "five-channels"])
@pytest.mark.parametrize("form", ["stablehlo", pytest.param("savedmodel", marks=pytest.mark.slow)])
def test_graphs_compute_the_same_for_any_batch(form, name, tmp_path):
    network = exported(NETWORKS[name], 16)
    for count in (2, 5):
        images = images_of(network, count)
        folder = tmp_path / str(count)
        folder.mkdir()
        found = formats.FORMATS[form](network, folder, images)
        ours, _ = exports.reference(network.model, network.variables, images)
        assert set(found) == {"h", "z", "logits"}
        assert exports.difference(ours, found) < 2e-6


def test_one_stablehlo_serves_every_batch_size_and_platform(tmp_path):
    network = exported(NETWORKS["basic-small"], 16)
    exports.stablehlo(network, tmp_path, images_of(network))
    content = bytearray((tmp_path / "model.stablehlo").read_bytes())
    loaded = jax.export.deserialize(content)
    assert loaded.platforms == ("cpu", "tpu", "cuda")
    for count in (1, 7):
        chex.assert_shape(loaded.call(images_of(network, count))["h"], (count, 64))


def test_a_difference_is_relative_to_the_largest_value():
    ours = {"h": np.array([10.0, 1.0]), "z": np.array([1.0])}
    assert exports.difference(ours, {"h": np.array([10.0, 1.5])}) == pytest.approx(0.05)
    assert exports.difference(ours, {"h": ours["h"], "z": np.array([2.0])}) == pytest.approx(1.0)


@pytest.mark.parametrize("broken", ["h", "z"])
def test_a_difference_that_is_no_number_is_told_whatever_the_others_are(broken):
    ours = {"h": np.array([10.0, 1.0]), "z": np.array([1.0])}
    assert np.isnan(exports.difference(ours, ours | {broken: ours[broken] * np.nan}))

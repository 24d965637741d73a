"""Measures of geometry against their definitions, computed in another way."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import pdist

from simclr_jax import cli
from simclr_jax import eval as evaluation
from simclr_jax import mesh as meshes
from simclr_jax.config import inputs, sources
from simclr_jax.evals import geometry
from simclr_jax.evals.features import Extractor
from simclr_jax.run.network import Network
from simclr_jax.store import checkpoint
from support.runs import result, status_of

run = partial(status_of, evaluation.main, "--config=eval/geometry")


def test_uniformity_is_that_of_all_pairs_whatever_the_blocks(rng):
    x = rng.normal(size=(50, 6)).astype(np.float32)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = np.log(np.exp(-2 * pdist(unit, "sqeuclidean")).mean())
    for rows in (7, 50, 64):
        assert geometry.uniformity(x, rows=rows) == pytest.approx(expected, abs=1e-5)


def test_alignment_is_the_mean_over_images_not_over_batches(rng):
    a, b = rng.normal(size=(2, 9, 4)).astype(np.float32)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
    expected = np.mean(np.sum((unit[0] - unit[1]) ** 2, axis=1))
    found = geometry.alignment([(a[:7], b[:7]), (a[7:], b[7:])])
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("images", [5, 40])
def test_ranks_are_those_of_the_singular_values(rng, images):
    """With fewer images than dimensions RankMe has as many singular values as images."""
    x = (rng.normal(size=(images, 12)) @ np.diag(0.5 ** np.arange(12.0)) + 1).astype(np.float32)
    covariance, moment = geometry.moments(x, rows=3)
    np.testing.assert_allclose(covariance, np.cov(x.T, bias=True), atol=1e-12)

    def entropy_rank(values):
        return np.exp(-np.sum(values * np.log(values)))

    s = np.linalg.svd(x.astype(np.float64) - x.mean(axis=0, dtype=np.float64), compute_uv=False)
    shares = s**2 / np.sum(s**2)
    found = geometry.rank(geometry.eigenvalues(covariance))
    assert found == pytest.approx(entropy_rank(shares[shares > 1e-20]), rel=1e-9)
    s = np.linalg.svd(x.astype(np.float64), compute_uv=False)
    found = geometry.rank(np.sqrt(geometry.eigenvalues(moment))[-images:], geometry.EPSILON)
    assert found == pytest.approx(entropy_rank(s / s.sum() + 1e-7), rel=1e-6)


def test_equal_features_are_a_collapse():
    x = np.ones((6, 3), np.float32)
    covariance, _ = geometry.moments(x)
    assert geometry.rank(geometry.eigenvalues(covariance)) == 0
    assert geometry.uniformity(x) == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_images_without_labels_are_measured(finished, capsys):
    flags = ["--config.data.num_classes=0", "--config.features.layer=z"]
    assert run(f"--run={finished}", *flags) == 0
    found = result(finished, "geometry", 8, "z,digits,*")
    assert (found["num_examples"], found["dim"]) == (360, 64)
    assert 0 < found["alignment"] < 4
    assert -8 < found["uniformity"] < 0
    assert 1 < found["effective_rank"] < 64
    assert "on 360 images of digits, layer z" in capsys.readouterr().out


def test_every_image_has_its_views_once(finished):
    network = Network.trained(checkpoint.Reader(finished), 8)
    source = sources.open_split(network.config, "eval")
    extractor = Extractor(
        network.model, network.variables, layer="pixels", image_size=8, batch_size=104,
        transfer_dtype="uint8", mesh=meshes.make(),
    )  # fmt: skip
    none = replace(inputs.views(network.config), ops=((), ()))
    found = np.concatenate(list(extractor.views(source, none, seed=3)))
    whole = np.concatenate([batch.x for batch in extractor.evaluation(source)])
    assert found.shape == (360, 2, 192)
    for view in (0, 1):
        np.testing.assert_array_equal(
            np.sort(found[:, view].sum(axis=1)), np.sort(whole.sum(axis=1))
        )


def test_a_single_image_is_refused(finished, tmp_path, capsys):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    flags = ["--config.data.name=folder", f"--config.data.dir={tmp_path}"]
    flags += ["--config.data.eval_split=.", "--config.geometry.split=train"]
    assert run(f"--run={finished}", *flags) == cli.USER_ERROR
    assert "geometry needs two images at least" in capsys.readouterr().err

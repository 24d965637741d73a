"""Frozen features: every image once, whatever the batch, and kept for the next evaluation."""

import tempfile
from functools import partial

import chex
import numpy as np
import pytest
from etils import epath

from simclr_jax import eval as evaluation
from simclr_jax import mesh as meshes
from simclr_jax.config import sources
from simclr_jax.data.digits import Digits
from simclr_jax.data.readable import Readable
from simclr_jax.errors import DivergedError
from simclr_jax.evals import features
from simclr_jax.run.network import Network
from simclr_jax.store import checkpoint
from support.runs import status_of


@pytest.fixture
def network(finished):
    return Network.trained(checkpoint.Reader(finished), 8)


def extractor(network, *, layer="h", batch_size=64):
    return features.Extractor(
        network.model, network.variables, layer=layer, image_size=8, batch_size=batch_size,
        transfer_dtype="uint8", mesh=meshes.make(),
    )  # fmt: skip


def evaluated(extractor, source):
    return features.Features(*map(np.concatenate, zip(*extractor.evaluation(source), strict=True)))


def test_padded_features_are_the_unpadded_ones(finished, network):
    """Odd batches, last one short: every example once, whatever the batch."""
    knn = partial(status_of, evaluation.main, "--config=eval/knn", f"--run={finished}")
    for size in (64, 104):
        assert knn(f"--config.features.batch_size={size}") == 0
    source = sources.open_split(network.config, "eval")
    found = [evaluated(extractor(network, batch_size=size), source) for size in (64, 104)]
    chex.assert_shape(found[0].x, (360, 32))
    np.testing.assert_allclose(found[0].x, found[1].x, atol=1e-5)
    np.testing.assert_array_equal(found[0].labels, source.load(np.arange(360))[1])


def test_a_batch_is_sent_before_the_one_ahead_of_it_is_fetched(finished, network, monkeypatch):
    """So the devices compute while the host fetches, checks and writes."""
    source = sources.open_split(network.config, "eval")
    extracts, events = extractor(network, batch_size=104), []
    real = extracts._extract

    class Result:
        def __init__(self, x):
            self.x = x
            events.append("sent")

        def __array__(self, *args, **kwargs):
            events.append("fetched")
            return np.asarray(self.x)

    monkeypatch.setattr(extracts, "_extract", lambda *arguments: Result(real(*arguments)))
    rows = [len(found.x) for found, _ in extracts.batches(source)]
    assert rows == [104, 104, 104, 48]
    assert events == ["sent", *["sent", "fetched"] * 3, "fetched"]


@pytest.mark.slow
def test_unreadable_images_have_no_features_and_are_counted(finished, network, monkeypatch):
    source = sources.open_split(network.config, "eval")
    whole = evaluated(extractor(network), source)
    load, torn = source.source.load, {3, 4, 359}

    def load_torn(indices):
        images, labels = load(indices)
        read = zip(indices, images, strict=True)
        return ["torn" if int(index) in torn else image for index, image in read], labels

    monkeypatch.setattr(source.source, "load", load_torn)
    found = evaluated(extractor(network), source)
    kept = [row for row in range(360) if row not in torn]
    np.testing.assert_array_equal(found.x, whole.x[kept])
    np.testing.assert_array_equal(found.labels, whole.labels[kept])


def test_features_that_are_kept_are_computed_again_for_other_weights_or_a_damaged_file(
    tmp_path, capsys
):
    class Extractor:
        computed = 0

        def evaluation(self, source):
            self.computed += 1
            yield features.Features(np.full((2, 3), self.computed, np.float32), np.arange(2))

    made, images = Extractor(), Readable(Digits("test"), on_bad_image="error")

    def of(checkpoint):
        return features.cached(epath.Path(tmp_path), made, images, keep=4, checkpoint=checkpoint).x[
            0, 0
        ]

    assert [of("a"), of("b"), of("a"), of("b")] == [1, 2, 1, 2]
    said = capsys.readouterr().err.splitlines()
    assert said == 2 * ["computing the features of 360 images of 'test'", "features 2/360"]
    for path in tmp_path.glob("*.npy"):
        path.write_bytes(path.read_bytes()[:40])
    assert of("a") == 3


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e30])
def test_features_that_are_not_finite_are_neither_used_nor_kept(tmp_path, wrong):
    """One whose square is infinite would have a similarity of 0 to all others."""
    x = np.ones((4, 3), np.float32)
    x[2, 1] = wrong

    class Extractor(features.Extractor):
        def __init__(self):
            self.layer = "h"

        def batches(self, source):
            yield features.Features(x, np.arange(4)), np.ones(4, bool)

    images = Readable(Digits("test"), on_bad_image="error")
    with pytest.raises(DivergedError, match=r"1 of 4 images .* layer h that are not finite"):
        features.cached(epath.Path(tmp_path) / "kept", Extractor(), images, keep=4)
    assert list((tmp_path / "kept").iterdir()) == []


def test_without_a_place_features_are_kept_for_as_long_as_they_are_used(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    class Extractor:
        def evaluation(self, source):
            yield features.Features(np.ones((2, 3), np.float32), np.arange(2))

    images = Readable(Digits("test"), on_bad_image="error")
    found = features.cached(None, Extractor(), images, keep=4)
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(found.x, np.ones((2, 3)))


def test_a_layer_that_the_head_does_not_have_is_named(network):
    with pytest.raises(ValueError, match="head9: the projection head has 3 layers"):
        extractor(network, layer="head9")

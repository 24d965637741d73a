"""Frozen features: every image once, whatever the batch, and kept for the next evaluation."""

from functools import partial

import chex
import numpy as np
import pytest

from simclr_jax import eval as evaluation
from simclr_jax import mesh as meshes
from simclr_jax.config import sources
from simclr_jax.data.digits import Digits
from simclr_jax.data.source import Readable
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


def test_padded_features_are_the_unpadded_ones(finished, network):
    """Odd batches, last one short: every example once, whatever the batch."""
    knn = partial(status_of, evaluation.main, "--config=eval/knn", f"--run={finished}")
    for size in (64, 104):
        assert knn(f"--config.features.batch_size={size}") == 0
    source = sources.open_split(network.config, "eval")
    found = [extractor(network, batch_size=size).evaluation(source) for size in (64, 104)]
    chex.assert_shape(found[0].x, (360, 32))
    np.testing.assert_allclose(found[0].x, found[1].x, atol=1e-5)
    np.testing.assert_array_equal(found[0].labels, source.load(np.arange(360))[1])


def test_unreadable_images_have_no_features_and_are_counted(finished, network, monkeypatch):
    source = sources.open_split(network.config, "eval")
    whole = extractor(network).evaluation(source)
    load, torn = source.source.load, {3, 4, 359}

    def load_torn(indices):
        images, labels = load(indices)
        read = zip(indices, images, strict=True)
        return ["torn" if int(index) in torn else image for index, image in read], labels

    monkeypatch.setattr(source.source, "load", load_torn)
    found = extractor(network).evaluation(source)
    kept = [row for row in range(360) if row not in torn]
    np.testing.assert_array_equal(found.x, whole.x[kept])
    np.testing.assert_array_equal(found.labels, whole.labels[kept])


def test_features_that_are_kept_are_computed_again_for_other_weights_or_a_damaged_file(tmp_path):
    class Extractor:
        computed = 0

        def evaluation(self, source):
            self.computed += 1
            return features.Features(np.full((2, 3), self.computed, np.float32), np.arange(2))

    made, images = Extractor(), Readable(Digits("test"), on_bad_image="error")

    def of(checkpoint):
        return features.cached(tmp_path, made, images, checkpoint=checkpoint).x[0, 0]

    assert [of("a"), of("b"), of("a"), of("b")] == [1, 2, 1, 2]
    for path in tmp_path.glob("*.npz"):
        path.write_bytes(path.read_bytes()[:40])
    assert of("a") == 3


def test_a_layer_that_the_head_does_not_have_is_named(network):
    with pytest.raises(ValueError, match="head9: the projection head has 3 layers"):
        extractor(network, layer="head9")

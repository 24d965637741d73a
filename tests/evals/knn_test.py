"""Votes of nearest neighbours against a loop over them."""

import numpy as np
import pytest

from simclr_jax.evals import knn
from simclr_jax.evals import passes as passes_module
from simclr_jax.evals.features import Features


def by_hand(train, test, k, temperature):
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (test.x, train.x)]
    votes = np.zeros((len(test.x), 5))
    for row, similarity in enumerate(unit[0] @ unit[1].T):
        weight = np.exp((similarity - similarity.max()) / temperature)
        for column in np.argsort(-similarity)[:k]:
            votes[row, train.labels[column]] += weight[column]
    return votes


def votes(train, test, mesh, **options):
    """The votes of all blocks, an array for each k."""
    options = {"classes": 5, "temperature": 0.2, "mesh": mesh, **options}
    blocks = zip(*knn.votes(train, test.x, **options), strict=True)
    return [np.concatenate(block) for block in blocks]


@pytest.mark.parametrize("held_bytes", [None, 0])
def test_knn_equals_voting_by_hand_for_every_k(blobs, mesh8, monkeypatch, held_bytes):
    """The training images are several blocks, of 13 on each device, held there or read anew."""
    monkeypatch.setattr(passes_module, "LOGITS_BYTES", 4 * 40 * 13)
    ks, options = [7, 1, 1000], {"test_rows": 40, "held_bytes": held_bytes}
    found = votes(*blobs, mesh8, ks=ks, **options)
    for k, each in zip(ks, found, strict=True):
        np.testing.assert_allclose(each, by_hand(*blobs, k, 0.2), rtol=1e-4)
        np.testing.assert_array_equal(each, votes(*blobs, mesh8, ks=[k], **options)[0])


@pytest.mark.parametrize(("query_bytes", "passes"), [(2**30, 1), (1, 3)])
def test_training_features_go_to_the_devices_once(
    blobs, mesh8, monkeypatch, query_bytes, passes
):  # fmt: skip
    """Where the devices hold them; otherwise once for each share of the test images."""
    train, test = blobs
    monkeypatch.setattr(passes_module, "LOGITS_BYTES", 4 * 40 * 13)
    monkeypatch.setattr(knn, "QUERY_BYTES", query_bytes)
    sent, real = [], passes_module.Rows._read
    monkeypatch.setattr(
        passes_module.Rows, "_read", lambda self, index: sent.extend(index) or real(self, index)
    )
    options = {"ks": [7], "test_rows": -(-len(test.x) // 3)}
    held = votes(train, test, mesh8, **options)
    assert sorted(set(sent)) == sorted(sent)
    sent.clear()
    np.testing.assert_array_equal(held, votes(train, test, mesh8, held_bytes=0, **options))
    assert sent.count(0) == passes


def test_eight_devices_take_the_neighbours_of_one_even_among_equal_ones(rng, mesh1, mesh8):
    """Unit vectors of ±1/4 have exact similarities, of which there are 17: many are equal."""
    signs = rng.choice(np.float32([-1, 1]), (300, 16))
    train = Features(signs, rng.integers(0, 5, 300).astype(np.int32))
    test = Features(rng.choice(np.float32([-1, 1]), (40, 16)), np.zeros(40, np.int32))
    ks = [1, 20, 299]
    one, eight = (votes(train, test, mesh, ks=ks) for mesh in (mesh1, mesh8))
    np.testing.assert_array_equal(one, eight)
    nearest = np.argsort(-(test.x @ signs.T), axis=1, kind="stable")[:, 0]
    assert (one[0].argmax(axis=1) == train.labels[nearest]).all()


def test_numbers_of_neighbours_that_are_more_than_half_of_the_voters_are_doubted():
    assert knn.in_doubt([200], 400) is None
    said = knn.in_doubt([200, 20, 190], 360)
    assert said.startswith("config.knn.k=200,190 is more than half of the 360 training images")
    assert "config.knn.k=36, a tenth of them, says more" in said
    assert knn.in_doubt([1], 1) is None


def test_an_image_without_a_label_is_no_neighbour(blobs, mesh8):
    train, test = blobs
    labels = np.where(np.arange(len(train.labels)) % 3, train.labels, -1)
    known = labels >= 0
    kept = Features(train.x[known], labels[known])
    found, expected = (
        votes(each, test, mesh8, ks=[7]) for each in (kept, Features(train.x, labels))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)

"""Votes of nearest neighbours against a loop over them."""

import numpy as np

from simclr_jax.evals import knn
from simclr_jax.evals.features import Features


def by_hand(train, test, k, temperature):
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (test.x, train.x)]
    votes = np.zeros((len(test.x), 5))
    for row, similarity in enumerate(unit[0] @ unit[1].T):
        weight = np.exp((similarity - similarity.max()) / temperature)
        for column in np.argsort(-similarity)[:k]:
            votes[row, train.labels[column]] += weight[column]
    return votes


def votes(train, test, **options):
    """The votes of all blocks, an array for each k."""
    blocks = zip(*knn.votes(train, test.x, classes=5, temperature=0.2, **options), strict=True)
    return [np.concatenate(block) for block in blocks]


def test_knn_equals_voting_by_hand_for_every_k(blobs):
    ks = [7, 1, 1000]
    found = votes(*blobs, ks=ks, test_rows=40, train_rows=64)
    for k, each in zip(ks, found, strict=True):
        np.testing.assert_allclose(each, by_hand(*blobs, k, 0.2), rtol=1e-4)
        np.testing.assert_array_equal(each, votes(*blobs, ks=[k], test_rows=40, train_rows=64)[0])


def test_an_image_without_a_label_is_no_neighbour(blobs):
    train, test = blobs
    labels = np.where(np.arange(len(train.labels)) % 3, train.labels, -1)
    known = labels >= 0
    kept = Features(train.x[known], labels[known])
    np.testing.assert_array_equal(
        votes(Features(train.x, labels), test, ks=[7]), votes(kept, test, ks=[7])
    )

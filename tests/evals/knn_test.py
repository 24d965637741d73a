"""Votes of nearest neighbours against a loop over them."""

import numpy as np
import pytest

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


@pytest.mark.parametrize("k", [1, 7, 1000])
def test_knn_equals_voting_by_hand(blobs, k):
    votes = knn.scores(*blobs, classes=5, k=k, temperature=0.2, test_rows=40, train_rows=64)
    np.testing.assert_allclose(votes, by_hand(*blobs, k, 0.2), rtol=1e-4)


def test_an_image_without_a_label_is_no_neighbour(blobs):
    train, test = blobs
    labels = np.where(np.arange(len(train.labels)) % 3, train.labels, -1)
    known = labels >= 0
    kept = Features(train.x[known], labels[known])
    np.testing.assert_array_equal(
        knn.scores(Features(train.x, labels), test, classes=5, k=7, temperature=0.2),
        knn.scores(kept, test, classes=5, k=7, temperature=0.2),
    )

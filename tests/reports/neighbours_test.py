"""Neighbours among the images themselves: against scikit-learn, and against the evaluation."""

import jax
import numpy as np
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from simclr_jax import mesh as meshes
from simclr_jax.evals import knn
from simclr_jax.evals.features import Features
from simclr_jax.reports import neighbours


def test_neighbours_are_those_of_scikit_learn(rng, monkeypatch):
    monkeypatch.setattr("simclr_jax.evals.similarity.ROWS", 16)  # Several parts.
    x = rng.normal(size=(50, 8)).astype(np.float32)
    found = neighbours.nearest(x, 5)
    distances, rows = NearestNeighbors(n_neighbors=5, metric="cosine").fit(x).kneighbors()
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.similarity, 1 - distances, atol=1e-6)


def test_no_image_is_its_own_neighbour_even_among_copies():
    found = neighbours.nearest(np.ones((4, 3), np.float32), 10)
    assert found.rows.shape == (4, 3)
    assert all(row not in found.rows[row] for row in range(4))


def test_votes_are_those_of_the_evaluation_without_the_image_itself(rng):
    x, labels = rng.normal(size=(30, 6)).astype(np.float32), rng.integers(0, 3, 30)
    labels[4] = -1
    found = neighbours.votes(neighbours.nearest(x, 29), labels, classes=3, k=29, temperature=0.1)
    for row in range(30):
        others = np.arange(30) != row
        train = Features(x[others], labels[others].astype(np.int32))
        ((expected,),) = knn.votes(
            train, x[row : row + 1], classes=3, ks=[29], temperature=0.1,
            mesh=meshes.make(jax.devices()[:1]),
        )  # fmt: skip
        np.testing.assert_allclose(found[row], expected[0] / expected.sum(), atol=1e-4)


def test_an_image_whose_neighbours_have_no_labels_has_no_votes():
    x = np.float32([[1, 0], [1, 0.1], [0, 1]])
    labels = np.array([0, -1, -1])
    found = neighbours.votes(neighbours.nearest(x, 1), labels, classes=2, k=1, temperature=0.1)
    assert found.sum(axis=1).tolist() == [0, 1, 0]


def test_the_map_is_that_of_principal_components(rng):
    x = rng.normal(size=(40, 6)) * [5, 3, 1, 1, 1, 1]
    places, share = neighbours.by_pca(x)
    pca = PCA(2).fit(neighbours.unit_rows(x))
    expected = pca.transform(neighbours.unit_rows(x))
    np.testing.assert_allclose(np.abs(places), np.abs(expected), atol=1e-6)
    np.testing.assert_allclose(share, pca.explained_variance_ratio_.sum())


def test_images_that_are_all_the_same_have_a_map():
    places, share = neighbours.by_pca(np.ones((3, 4), np.float32))
    assert np.isfinite(places).all()
    assert np.isfinite(share)

"""Neighbours and groups agree with other libraries, whatever the blocks and the features."""

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors

from simclr_jax.evals import similarity, stored


@pytest.fixture(params=[(7, 5), (2**13, 2**10)], ids=["small blocks", "one block"])
def blocks(request, monkeypatch):
    """The numbers of features and of queries in a block."""
    for name, value in zip(("ROWS", "QUERIES"), request.param, strict=True):
        monkeypatch.setattr(f"simclr_jax.evals.similarity.{name}", value)


@pytest.mark.parametrize("k", [1, 6, 40])
def test_the_nearest_are_those_of_sklearn(rng, blocks, k):
    x, queries = (rng.normal(size=(n, 8)).astype(np.float32) for n in (40, 12))
    distance, rows = NearestNeighbors(n_neighbors=k, metric="cosine").fit(x).kneighbors(queries)
    found = similarity.nearest(queries, x, k)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.similarity, 1 - distance, atol=1e-6)


def test_an_image_is_not_its_own_neighbour_where_that_is_asked(rng, blocks):
    x = rng.normal(size=(30, 4)).astype(np.float32)
    with_itself, found = (
        similarity.nearest(x, x, 4, but=but).rows for but in (None, np.arange(len(x)))
    )
    np.testing.assert_array_equal(with_itself[:, 0], np.arange(len(x)))
    np.testing.assert_array_equal(found[:, :3], with_itself[:, 1:])


def test_features_that_are_not_finite_or_missing_are_no_neighbours(blocks):
    x = np.float32([[np.nan, 1], [1, 0], [np.inf, 1], [0, 1], [1e30, 0], [0, 0]])
    found = similarity.nearest(np.float32([[1, 0.1]]), x, 9)
    assert found.rows.tolist() == [[1, 3, 5, -1, -1, -1]]
    assert np.isneginf(found.similarity[0, 3:]).all()


def test_of_equal_ones_the_first_come_first(blocks):
    found = similarity.nearest(np.float32([[0, 1]]), np.float32([[1, 0], *12 * [[0, 2]]]), 4)
    assert found.rows.tolist() == [[1, 2, 3, 4]]


def test_of_many_copies_the_first_come_first_too(rng, blocks):
    kinds = rng.integers(0, 5, 600)
    x = np.eye(5, dtype=np.float32)[kinds]
    found = similarity.nearest(np.eye(5, dtype=np.float32), x, 7)
    assert found.rows.tolist() == [np.flatnonzero(kinds == kind)[:7].tolist() for kind in range(5)]


def test_features_of_half_the_size_are_compared_as_float32(rng, tmp_path):
    x = rng.normal(size=(20, 8)).astype(np.float16)
    x.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", np.float16, "r", 0, x.shape).view(stored.Half)
    whole = x.astype(np.float32)
    for one, other in zip(
        similarity.nearest(whole, mapped, 3), similarity.nearest(whole, whole, 3), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert len(similarity.groups(np.concatenate([x, x]), 0.999)) == 20


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.9])
def test_groups_are_the_connected_components_of_similar_pairs(rng, blocks, threshold):
    x = rng.normal(size=(60, 5)).astype(np.float32)
    similar = cosine_similarity(x) >= threshold
    _, component = connected_components(coo_array(similar))
    expected = [np.flatnonzero(component == number) for number in range(component.max() + 1)]
    counted = []
    found = similarity.groups(x, threshold, compared=counted.append)
    assert {tuple(group) for group in found} == {tuple(each) for each in expected if len(each) > 1}
    assert [len(group) for group in found] == sorted(map(len, found), reverse=True)
    assert sum(counted) == len(x)


def test_one_chain_is_one_group(blocks):
    angle = np.linspace(0, 3, 50)[np.random.default_rng(1).permutation(50)]
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    (group,) = similarity.groups(x, np.cos(0.07))
    assert group.tolist() == list(range(50))
    assert similarity.groups(x, np.cos(0.05)) == []


def test_equal_features_are_a_group_at_the_threshold_1_and_those_not_finite_are_in_none(blocks):
    x = np.float32([[0.1, 0.7], [np.nan, 0], [0.2, 1.4], [np.nan, 0], [1, 0], [0, 0], [0, 0]])
    assert [group.tolist() for group in similarity.groups(x, 1.0)] == [[0, 2]]


def test_similarities_are_cosines(rng, blocks):
    x = rng.normal(size=(20, 6)).astype(np.float32)
    rows = np.array([3, *range(19)])
    found = similarity.to_rows(x[3], x, rows)
    np.testing.assert_allclose(found, cosine_similarity(x)[3][rows], atol=1e-6)

"""What is measured beside the loss, on embeddings and logits whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special, stats
from sklearn import metrics

from simclr_jax import losses
from simclr_jax.losses import collapse, cross_entropy, l2_normalize


def test_the_same_embedding_for_every_image_is_a_collapse_to_a_point():
    z = jnp.tile(jnp.array([[3.0, 0.0, 4.0]]), (6, 1))
    found = collapse(z, 2 * z)  # lengths do not count
    np.testing.assert_allclose(found["mean_similarity"], 1.0, rtol=1e-6)
    np.testing.assert_allclose(found["effective_rank"], 1.0, rtol=1e-6)


def test_embeddings_on_a_line_have_rank_one_whatever_their_similarity():
    z = jnp.array([[1.0, 2.0], [-1.0, -2.0], [2.0, 4.0], [-3.0, -6.0]])
    found = collapse(z, z)
    np.testing.assert_allclose(found["mean_similarity"], -1 / 3, rtol=1e-6)  # 2 alike, 4 opposed
    np.testing.assert_allclose(found["effective_rank"], 1.0, rtol=1e-6)


@pytest.mark.parametrize("dim", [2, 5])
def test_orthogonal_embeddings_fill_every_direction(dim):
    found = collapse(jnp.eye(dim), jnp.eye(dim))
    np.testing.assert_allclose(found["mean_similarity"], 0.0, atol=1e-6)
    np.testing.assert_allclose(found["effective_rank"], dim, rtol=1e-6)


def test_views_of_the_same_image_do_not_count_as_similar():
    """Two images, each with equal views, at right angles."""
    z = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    assert collapse(z, z)["mean_similarity"] == 0.0
    turned = jnp.array([[0.0, 1.0], [1.0, 0.0]])  # each view equals the other image's other view
    np.testing.assert_allclose(collapse(z, turned)["mean_similarity"], 0.5, rtol=1e-6)


def test_collapse_equals_cosines_pair_by_pair_and_eigenvalues(rng):
    views = rng.normal(size=(2, 7, 4)) + 0.5
    found = collapse(*jnp.asarray(views))
    unit = views / np.linalg.norm(views, axis=2, keepdims=True)
    cosines = [
        a[i] @ b[j] for a in unit for b in unit for i in range(7) for j in range(7) if i != j
    ]
    np.testing.assert_allclose(found["mean_similarity"], np.mean(cosines), rtol=1e-5)
    rows = unit.reshape(14, 4)
    eigenvalues = np.linalg.eigvalsh(rows.T @ rows / 14)
    np.testing.assert_allclose(eigenvalues.sum(), 1.0)
    np.testing.assert_allclose(found["effective_rank"], 1 / np.sum(eigenvalues**2), rtol=1e-5)


def test_pair_measures_equal_cosines_and_distances_pair_by_pair(rng):
    views = rng.normal(size=(2, 5, 4)) + 0.5
    found = losses.pair_measures(*jnp.asarray(views))
    a, b = unit = views / np.linalg.norm(views, axis=2, keepdims=True)
    rows = unit.reshape(10, 4)
    image = np.arange(10) % 5
    hardest = [max(rows[image != image[row]] @ rows[row]) for row in range(10)]
    distances = [
        np.sum((x - y) ** 2)
        for i, x in zip(image, rows, strict=True)
        for j, y in zip(image, rows, strict=True)
        if i != j
    ]
    singular = np.linalg.svd(rows, compute_uv=False)
    expected = {
        "positive_similarity": np.mean(np.sum(a * b, axis=1)),
        "hardest_similarity": np.mean(hardest),
        "alignment": np.mean(np.sum((a - b) ** 2, axis=1)),
        "uniformity": np.log(np.mean(np.exp(-2 * np.array(distances)))),
        "rankme": np.exp(stats.entropy(singular)),
    }
    assert set(found) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-5, err_msg=key)


def test_a_collapse_to_a_point_shows_in_every_pair_measure():
    z = jnp.tile(jnp.array([[3.0, 0.0, 4.0]]), (6, 1))
    found = {key: float(value) for key, value in losses.pair_measures(z, 2 * z).items()}
    expected = {"positive_similarity": 1.0, "hardest_similarity": 1.0, "alignment": 0.0}
    expected |= {"uniformity": 0.0, "rankme": 1.0}
    assert found == pytest.approx(expected, abs=1e-4)


def test_cross_entropy_is_the_mean_of_minus_log_of_the_labels_share(rng):
    logits, labels = rng.normal(size=(9, 4)), rng.integers(0, 4, 9)
    loss, accuracy = cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
    expected = -np.mean(np.log(special.softmax(logits, axis=1)[np.arange(9), labels]))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert accuracy == np.float32(np.mean(logits.argmax(axis=1) == labels))


def test_cross_entropy_of_large_logits_is_finite_and_exact():
    loss, accuracy = cross_entropy(jnp.array([[1e4, 0.0], [0.0, 1e4]]), jnp.array([0, 0]))
    assert (loss, accuracy) == (5e3, 0.5)


def test_normalised_rows_have_length_one_but_for_zero_which_stays_and_has_a_gradient(rng):
    z = jnp.asarray(rng.normal(size=(3, 4))).at[1].set(0.0)
    lengths = jnp.linalg.norm(l2_normalize(z), axis=1)
    np.testing.assert_allclose(lengths, [1.0, 0.0, 1.0], rtol=1e-6)
    grad = jax.grad(lambda z: jnp.sum(l2_normalize(z) ** 3))(z)
    assert np.isfinite(grad).all()


def test_images_without_labels_are_in_no_mean(rng):
    logits = jnp.asarray(rng.normal(size=(12, 5)), jnp.float32)
    labels = jnp.asarray([0, 1, -1, 3, 4, -1, 2, 2, -1, -1, 0, 1], jnp.int32)
    chosen = labels >= 0
    expected = losses.cross_entropy(logits[chosen], labels[chosen])
    np.testing.assert_allclose(losses.cross_entropy(logits, labels), expected, rtol=1e-6)
    weights = losses.label_weights(labels)
    parts = [losses.cross_entropy(logits[r::3], labels[r::3], weights[r::3]) for r in range(3)]
    np.testing.assert_allclose(np.mean(parts, axis=0), expected, rtol=1e-6)
    nothing = losses.cross_entropy(logits, jnp.full(12, -1))
    assert [float(value) for value in nothing] == [0.0, 0.0]


def test_with_all_labels_the_mean_is_the_plain_one_bit_for_bit(rng):
    logits = jnp.asarray(rng.normal(size=(24, 5)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 5, 24), jnp.int32)
    plain = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    assert losses.cross_entropy(logits, labels)[0] == plain


def several(rng):
    """(logits, labels) of 12 images and 5 classes, some of which do not count (-1)."""
    labels = rng.choice([-1, 0, 1], (12, 5), p=[0.2, 0.5, 0.3]).astype(np.int8)
    return rng.normal(size=(12, 5)).astype(np.float32), labels


def test_binary_cross_entropy_is_the_mean_over_the_labels_that_count(rng):
    logits, labels = several(rng)
    counted = labels >= 0
    found = losses.label_loss(jnp.asarray(logits), jnp.asarray(labels))
    truth, p = labels[counted], special.expit(logits[counted].astype(np.float64))
    right = np.mean((p > 0.5) == (truth == 1))
    np.testing.assert_allclose(found, (metrics.log_loss(truth, p), right), rtol=1e-6)
    nothing = losses.label_loss(jnp.asarray(logits), jnp.full((12, 5), -1))
    assert [float(value) for value in nothing] == [0.0, 0.0]


def test_the_mean_over_parts_of_a_batch_counts_each_label_the_same(rng):
    logits, labels = map(jnp.asarray, several(rng))
    weights = losses.label_weights(labels)
    parts = [losses.label_loss(logits[r::3], labels[r::3], weights[r::3]) for r in range(3)]
    np.testing.assert_allclose(np.mean(parts, axis=0), losses.label_loss(logits, labels), rtol=1e-6)

"""Which negatives count, against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simclr_jax import losses
from simclr_jax.losses.pairs import all_negatives, semi_hard


def choice(similarity_N, own):
    """The semi-hard negative of one anchor, by a loop over its candidates."""
    best = None
    for j, similarity in enumerate(similarity_N):
        nearer = best is None or similarity > similarity_N[best]
        if j != own and similarity < similarity_N[own] and nearer:
            best = j
    if best is None:
        others = [j for j in range(len(similarity_N)) if j != own]
        best = min(others, key=lambda j: similarity_N[j])
    return best


@pytest.mark.parametrize("steps", [4, 1000])
def test_the_semi_hard_negative_is_that_of_a_loop(rng, steps):
    """With similarities of few values many are equal, and often none is farther."""
    similarity = (rng.integers(-steps, steps, (2, 50, 7)) / steps).astype(np.float32)
    own = rng.integers(0, 7, 50)
    own_VBN = jnp.broadcast_to(jnp.asarray(own[:, None] == np.arange(7))[None], (2, 50, 7))
    found = np.asarray(semi_hard(jnp.asarray(similarity), own_VBN))
    expected = [[choice(row, i) for row, i in zip(rows, own, strict=True)] for rows in similarity]
    np.testing.assert_array_equal(found, np.eye(7)[expected])
    np.testing.assert_allclose(np.sum(all_negatives(similarity, own_VBN), axis=2), 1, rtol=1e-6)


def test_a_triplet_at_the_margin_has_no_gradient():
    """u·p = 1.25 or 1, and u·n = 0.5, of both anchors of either view."""
    z = jnp.array([[1.0, 0.0], [0.5, 1.0]])

    def loss(z_a, z_b):
        return losses.margin_triplet(z_a, z_b, margin=0.5, normalize=False)[0]

    assert not np.any(jax.jit(jax.grad(loss))(z, z))


def test_a_negative_margin_is_named():
    with pytest.raises(ValueError, match=r"margin must be at least 0, got -0\.1"):
        losses.margin_triplet(jnp.zeros((2, 3)), jnp.zeros((2, 3)), margin=-0.1)

"""NT-Xent against oracles that loop or average, and properties that bugs would break."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from simclr_jax import losses


def loops(z_a, z_b, temperature, normalize=True):
    """NT-Xent written as in Algorithm 1: for each of 2N rows, over every other row."""
    z = np.concatenate([z_a, z_b]).astype(np.float64)
    if normalize:
        z /= np.linalg.norm(z, axis=1, keepdims=True)
    n, total = len(z_a), 0.0
    for i in range(2 * n):
        positive = (i + n) % (2 * n)
        others = [np.exp(z[i] @ z[k] / temperature) for k in range(2 * n) if k != i]
        total -= np.log(np.exp(z[i] @ z[positive] / temperature) / np.sum(others))
    return total / n  # twice the mean over 2n rows


@pytest.fixture
def pair(rng):
    return rng.normal(size=(6, 5)).astype(np.float32), rng.normal(size=(6, 5)).astype(np.float32)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("normalize", [True, False])
def test_loss_equals_the_loops_of_algorithm_1(pair, temperature, normalize):
    loss, _ = losses.nt_xent(*pair, temperature=temperature, normalize=normalize)
    np.testing.assert_allclose(loss, loops(*pair, temperature, normalize), rtol=1e-5)


def test_loss_is_twice_optax_mean_over_rows(pair):
    labels = jnp.tile(jnp.arange(6), 2)
    with jax.numpy_rank_promotion("allow"):
        mean = optax.losses.ntxent(jnp.concatenate(pair), labels, temperature=0.3)
    loss, _ = losses.nt_xent(*pair, temperature=0.3)
    np.testing.assert_allclose(loss, 2 * mean, rtol=1e-5)


def test_gradient_equals_finite_differences(pair):
    with jax.enable_x64(True):
        z_a, z_b = (jnp.asarray(z, jnp.float64) for z in pair)

        @jax.jit
        def loss(z):
            return losses.nt_xent(z, z_b, temperature=0.2)[0]

        grad = jax.grad(loss)(z_a)
        for index in [(0, 0), (3, 2), (5, 4)]:
            nudge = jnp.zeros_like(z_a).at[index].set(1e-6)
            slope = (loss(z_a + nudge) - loss(z_a - nudge)) / 2e-6
            np.testing.assert_allclose(grad[index], slope, rtol=1e-6)


def test_loss_is_invariant_to_swapping_views_and_permuting_images(pair, rng):
    order = rng.permutation(6)
    loss, _ = losses.nt_xent(*pair, temperature=0.1)
    swapped, _ = losses.nt_xent(*pair[::-1], temperature=0.1)
    permuted, _ = losses.nt_xent(*(z[order] for z in pair), temperature=0.1)
    np.testing.assert_allclose([swapped, permuted], [loss, loss], rtol=1e-6)


def test_one_image_has_no_negatives_and_no_loss():
    z = jnp.array([[1.0, 2.0]])
    loss, metrics = losses.nt_xent(z, -z, temperature=0.1)
    assert loss == 0.0  # were self-similarity kept, this would be large
    assert metrics["contrastive_accuracy"] == 1.0


def test_start_is_near_twice_log_of_the_candidates(rng):
    z = rng.normal(size=(2, 64, 4096))
    loss, _ = losses.nt_xent(*jnp.asarray(z), temperature=1.0)
    np.testing.assert_allclose(loss, 2 * np.log(127), rtol=0.01)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_loss_is_finite_at_low_temperature_and_zero_rows(rng, dtype):
    z = jnp.asarray(rng.normal(size=(2, 8, 16)), dtype).at[0, 0].set(0.0)
    value, grad = jax.value_and_grad(lambda z: losses.nt_xent(*z, temperature=0.01)[0])(z)
    assert value.dtype == jnp.float32
    assert np.isfinite(value)
    assert np.isfinite(grad.astype(jnp.float32)).all()


def test_float64_stays_float64(pair):
    with jax.enable_x64(True):
        z_a, z_b = (jnp.asarray(z, jnp.float64) for z in pair)
        loss, _ = losses.nt_xent(z_a, z_b, temperature=0.1)
        assert loss.dtype == jnp.float64
        np.testing.assert_allclose(loss, loops(*pair, 0.1), rtol=1e-13)


def test_accuracy_and_entropy(rng):
    z = rng.normal(size=(4, 8))
    _, alike = losses.nt_xent(z, z, temperature=0.1)
    _, shifted = losses.nt_xent(z, np.roll(z, 1, axis=0), temperature=0.1)
    _, uniform = losses.nt_xent(np.ones((4, 8)), np.ones((4, 8)), temperature=0.1)
    assert alike["contrastive_accuracy"] == 1.0
    assert shifted["contrastive_accuracy"] == 0.0
    np.testing.assert_allclose(uniform["contrastive_entropy"], np.log(4), rtol=1e-5)

"""Losses against oracles that loop or average, and properties that bugs would break."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from simclr_jax import losses
from simclr_jax import mesh as meshes


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


def test_wrong_arguments_are_named():
    with pytest.raises(AssertionError, match=r"\(2, 3\).*\(4, 3\)"):
        losses.nt_xent(jnp.zeros((2, 3)), jnp.zeros((4, 3)), temperature=0.1)
    with pytest.raises(AssertionError, match="rank"):
        losses.nt_xent(jnp.zeros(3), jnp.zeros(3), temperature=0.1)
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        losses.nt_xent(jnp.zeros((2, 3)), jnp.zeros((2, 3)), temperature=0)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("images", "block_rows"), [(12, 8), (7, 4), (6, 100)])
def test_blocks_of_rows_equal_all_rows_at_once(rng, images, block_rows, normalize):
    """Loss, metrics and both gradients; 7 images have no divisor, so a block has one of them."""
    with jax.enable_x64(True):
        z_a, z_b = (jnp.asarray(rng.normal(size=(images, 5))) for _ in "ab")

        def compute(rows):
            def loss(z_a, z_b):
                return losses.nt_xent(
                    z_a, z_b, temperature=0.1, normalize=normalize, block_rows=rows
                )

            return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(z_a, z_b)

        for a, b in zip(*map(jax.tree.leaves, (compute(None), compute(block_rows))), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_blocks_stay_finite_at_low_temperature_and_without_negatives():
    z = jnp.concatenate([jnp.eye(4), jnp.zeros((2, 4))])
    for images in (6, 1):
        loss, grad = jax.value_and_grad(
            lambda z: losses.nt_xent(z, z, temperature=1e-3, block_rows=2)[0]
        )(z[:images])
        assert np.isfinite(loss)
        assert np.isfinite(grad).all()


def test_blocks_need_memory_for_a_block_alone():
    """2N = 4,096 in blocks of 128 take a tenth of the dense one's memory, by XLA's count."""

    def memory(block_rows):
        def loss(z_a, z_b):
            return losses.nt_xent(z_a, z_b, temperature=0.1, block_rows=block_rows)[0]

        z = jax.ShapeDtypeStruct((2048, 16), jnp.float32)
        compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(z, z).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(128) < 0.1 * memory(None)


def test_a_block_smaller_than_an_image_is_refused(pair):
    with pytest.raises(ValueError, match="block_rows must be at least 2"):
        losses.nt_xent(*pair, temperature=0.1, block_rows=1)


def test_rows_on_eight_devices_move_only_embeddings_and_a_row_of_statistics(mesh8):
    """One gather of embeddings forward, one of (L, σ) backward, and no other array between."""
    sharding, images, dim = meshes.sharded(mesh8), 64, 16

    def loss(z_a, z_b):
        gather = partial(meshes.replicate, mesh=mesh8)
        return losses.nt_xent(z_a, z_b, temperature=0.1, block_rows=32, gather=gather)[0]

    z = jax.ShapeDtypeStruct((images, dim), jnp.float32, sharding=sharding)
    grad = jax.jit(jax.grad(loss, argnums=(0, 1)), out_shardings=sharding)
    text = grad.lower(z, z).compile().as_text()
    gathered = re.findall(r"= (f32\[[\d,]*\]).* all-gather\(", text)
    assert sorted(gathered) == sorted([f"f32[2,{images},{dim}]", f"f32[2,{images},2]"])
    assert not re.search(r"(all-to-all|reduce-scatter|collective-permute)\(", text)

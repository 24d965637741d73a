"""Every contrastive loss against Table 2's gradients and loops, and the properties of all."""

import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.special import expit, softmax

from simclr_jax import losses
from simclr_jax import mesh as meshes

TAU, MARGIN = 0.3, 0.5
VARIANTS = {
    "nt_xent": losses.nt_xent,
    "dcl": losses.dcl,
    "nt_logistic": losses.nt_logistic,
    "nt_logistic, semi-hard": partial(losses.nt_logistic, mining="semi_hard"),
    "margin_triplet": partial(losses.margin_triplet, margin=MARGIN),
    "margin_triplet, semi-hard": partial(losses.margin_triplet, margin=MARGIN, mining="semi_hard"),
}
OTHERS = sorted({*VARIANTS} - {"nt_xent", "nt_logistic, semi-hard"})
every_loss = pytest.mark.parametrize("name", VARIANTS)


def semi_hard(u, positive, negatives):
    """The negative by a plain loop: the closest of those farther than the positive."""
    farther = [n for n in negatives if u @ n < u @ positive]
    return max(farther, key=lambda n: u @ n) if farther else min(negatives, key=lambda n: u @ n)


def row(name, u, positive, negatives):
    """The loss of an anchor, and its derivatives by u·p and by each u·n, as in Table 2."""
    s, s_n = u @ positive, negatives @ u
    if name in ("nt_xent", "dcl"):
        scores = np.exp(s_n / TAU)
        z = np.sum(scores) + (np.exp(s / TAU) if name == "nt_xent" else 0)
        pull = 1 - np.exp(s / TAU) / z if name == "nt_xent" else 1
        return np.log(z) - s / TAU, -pull / TAU, scores / z / TAU
    if "semi-hard" in name:
        chosen = semi_hard(u, positive, list(negatives))
        weight = np.all(negatives == chosen, axis=1).astype(float)
        assert weight.sum() == 1
    else:
        weight = np.full(len(negatives), 1 / len(negatives))
    if "logistic" in name:
        loss = -np.log(expit(s / TAU)) - weight @ np.log(expit(-s_n / TAU))
        return loss, -expit(-s / TAU) / TAU, weight * expit(s_n / TAU) / TAU
    active = weight * (s - s_n < MARGIN)
    return active @ (s_n - s + MARGIN), -active.sum(), active


def loops(name, z_a, z_b, normalize):
    """The loss and its gradient with respect to (z_a, z_b), one anchor after the other."""
    z = np.stack([z_a, z_b])
    length = np.linalg.norm(z, axis=2, keepdims=True) if normalize else 1.0
    v, images, total = z / length, z.shape[1], 0.0
    gradient = np.zeros_like(z)
    for side in (0, 1):
        for i in range(images):
            others = np.delete(np.arange(images), i)
            of_both = np.concatenate([v[1 - side, others], v[side, others]])
            negatives = of_both if name in ("nt_xent", "dcl") else v[1 - side, others]
            loss, pull, push = row(name, v[side, i], v[1 - side, i], negatives)
            total += loss / images
            gradient[side, i] += (pull * v[1 - side, i] + push @ negatives) / images
            gradient[1 - side, i] += pull * v[side, i] / images
            for view, weights in enumerate(push.reshape(-1, images - 1)):
                of_view = gradient[1 - side if view == 0 else side]
                of_view[others] += np.outer(weights, v[side, i]) / images
    if normalize:
        gradient -= np.sum(gradient * v, axis=2, keepdims=True) * v
    return total, gradient / length


@every_loss
@pytest.mark.parametrize("normalize", [True, False])
def test_the_loops_have_the_slope_of_their_gradient(name, normalize, rng):
    """What the next test compares with: Table 2's gradients are the derivatives of its losses."""
    z, along = rng.normal(size=(2, 2, 6, 5))
    (high, _), (low, _) = (loops(name, *(z + step * along), normalize) for step in (1e-6, -1e-6))
    slope = np.sum(loops(name, *z, normalize)[1] * along)
    np.testing.assert_allclose((high - low) / 2e-6, slope, rtol=1e-6)


@every_loss
@pytest.mark.parametrize(
    ("normalize", "block_rows"),
    [(True, 4), pytest.param(False, None, marks=pytest.mark.slow)],
)
def test_loss_and_gradient_are_those_of_table_2(name, normalize, block_rows, rng):
    """In three blocks, and all rows at once; the metrics are those of the logits over τ."""
    with jax.enable_x64(True):
        z = rng.normal(size=(2, 6, 5))
        loss = partial(VARIANTS[name], temperature=TAU, normalize=normalize, block_rows=block_rows)
        gradient_of = jax.jit(jax.value_and_grad(lambda z: loss(*z), has_aux=True))
        (value, metrics), gradient = gradient_of(jnp.asarray(z))
    expected, slopes = loops(name, *z, normalize)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-10, atol=1e-13)
    z_a, z_b = z / np.linalg.norm(z, axis=2, keepdims=True) if normalize else z
    p_NN = softmax(z_a @ z_b.T / TAU, axis=1)
    correct = np.argmax(p_NN, axis=1) == np.arange(6)
    np.testing.assert_allclose(metrics["contrastive_accuracy"], correct.mean(), rtol=1e-12)
    entropy = np.mean(scipy.stats.entropy(p_NN, axis=1))
    np.testing.assert_allclose(metrics["contrastive_entropy"], entropy, rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["nt_logistic, semi-hard", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)],
)
def test_rows_on_eight_devices_are_those_on_one(name, mesh1, mesh8, rng):
    """Loss, metrics and gradient in float64, in blocks that have a row pair of each device."""
    with jax.enable_x64(True):
        z_NVD = rng.normal(size=(24, 2, 5))

        def compute(mesh):
            gather = partial(meshes.replicate, mesh=mesh)
            loss = partial(VARIANTS[name], temperature=TAU, block_rows=16, gather=gather)
            gradient = jax.value_and_grad(lambda z: loss(z[:, 0], z[:, 1]), has_aux=True)
            return jax.jit(gradient)(jax.device_put(z_NVD, meshes.sharded(mesh)))

        chex.assert_trees_all_close(compute(mesh8), compute(mesh1), rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_blocks_on_eight_devices_move_embeddings_and_their_gradients_alone(mesh8):
    """No array with as many numbers as there are similarities goes between devices."""
    sharding, gather = meshes.sharded(mesh8), partial(meshes.replicate, mesh=mesh8)

    def loss(z_a, z_b):
        mined = VARIANTS["margin_triplet, semi-hard"]
        return mined(z_a, z_b, temperature=TAU, block_rows=32, gather=gather)[0]

    z = jax.ShapeDtypeStruct((64, 16), jnp.float32, sharding=sharding)
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)), out_shardings=sharding)
    text = gradient.lower(z, z).compile().as_text()
    moved = "all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute"
    assert set(re.findall(rf"= (\S+?)\{{\S* ({moved})\(", text)) == {
        ("f32[2,64,16]", "all-gather"), ("f32[2,64,16]", "all-reduce")
    }  # fmt: skip


@pytest.mark.slow  # The loops that all losses are compared with know neither.
@every_loss
def test_views_and_images_have_no_order(name, rng):
    with jax.enable_x64(True):
        z, order = rng.normal(size=(2, 6, 5)), rng.permutation(6)
        loss = jax.jit(partial(VARIANTS[name], temperature=TAU))
        value, swapped, permuted = (loss(*views)[0] for views in (z, z[::-1], z[:, order]))
        np.testing.assert_allclose([swapped, permuted], [value, value], rtol=1e-12)


@every_loss
@pytest.mark.parametrize(
    ("images", "temperature"),
    [(1, TAU), (6, 1e-3), pytest.param(2, 1e-3, marks=pytest.mark.slow)],
)
def test_few_images_zero_rows_and_collapsed_ones_have_finite_gradients(name, images, temperature):
    """In bfloat16, of which the loss is computed in float32; a lone image has its positive."""
    z = jnp.ones((2, images, 4), jnp.bfloat16).at[:, : images // 2].set(0)
    loss = partial(VARIANTS[name], temperature=temperature, block_rows=2)
    gradient_of = jax.jit(jax.value_and_grad(lambda z: loss(*z), has_aux=True))
    (value, metrics), gradient = gradient_of(z)
    assert value.dtype == jnp.float32
    assert gradient.dtype == jnp.bfloat16
    for x in (value, gradient.astype(jnp.float32), *metrics.values()):
        assert np.isfinite(x).all()
    if images == 1:
        positive = {"dcl": -1 / TAU, "nt_logistic": np.log1p(np.exp(-1 / TAU))}
        np.testing.assert_allclose(value, 2 * positive.get(name.split(",")[0], 0), rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["margin_triplet, semi-hard", pytest.param("nt_logistic", marks=pytest.mark.slow)]
)
def test_blocks_need_memory_for_a_block_alone(name):
    """2N = 4,096 in blocks of 128 take a tenth of all rows' memory, by XLA's count."""

    def memory(block_rows):
        def loss(z_a, z_b):
            return VARIANTS[name](z_a, z_b, temperature=TAU, block_rows=block_rows)[0]

        z = jax.ShapeDtypeStruct((2048, 16), jnp.float32)
        compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(z, z).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(128) < 0.1 * memory(None)


@every_loss
def test_wrong_arguments_are_named(name):
    loss = partial(VARIANTS[name], temperature=TAU)
    with pytest.raises(AssertionError, match=r"\(2, 3\).*\(4, 3\)"):
        loss(jnp.zeros((2, 3)), jnp.zeros((4, 3)))
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        loss(jnp.zeros((2, 3)), jnp.zeros((2, 3)), temperature=0)
    with pytest.raises(ValueError, match="block_rows must be at least 2"):
        loss(jnp.zeros((2, 3)), jnp.zeros((2, 3)), block_rows=1)

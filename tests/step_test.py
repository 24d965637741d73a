"""The sharded step equals the one-device step, and bugs that would break it are seen to."""

import zlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from simclr_jax import losses, optim
from simclr_jax import mesh as meshes
from simclr_jax import state as states
from simclr_jax.models.simclr import SimCLR
from simclr_jax.objectives.contrastive import Contrastive
from simclr_jax.objectives.microbatches import TwoPasses
from simclr_jax.step import train_step
from simclr_jax.verify import recorder

BATCH, SIZE, CLASSES, STEPS = 24, 8, 3, 3  # 24 rows: three a device, and no power of two


def nt_xent(z_a, z_b, **kwargs):
    return losses.nt_xent(z_a, z_b, temperature=0.2, **kwargs)


def rate(step):
    return jnp.asarray([0.5, 0.3, 0.2], jnp.float32)[step]


def build(dtype, *, mesh=None, loss=None, tx=None, classes=CLASSES, microbatches=1, **model):
    """(state, step) of a small network.

    Every parameter is drawn at random: batch-norm scales that start at 0 would hide most of the
    network from the tests.
    """
    model = SimCLR(
        depth=10, width=1 / 16, stem="small", head_dim=6, classes=classes, dtype=dtype, **model
    )
    if loss is None:
        gather = partial(meshes.replicate, mesh=mesh) if mesh else losses.identity
        loss = partial(nt_xent, block_rows=BATCH, gather=gather)
    optimizer = optim.optimizer("lars", rate, weight_decay=1e-2)
    tx = optax.chain(recorder(), tx or optimizer.tx)
    shapes = jax.eval_shape(partial(states.initialize, model, tx, seed=0, image_size=SIZE))

    def draw(path, leaf):
        name = "/".join(key.key for key in path)
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        low, high = (0.5, 1.5) if path[-1].key in ("scale", "var") else (-0.5, 0.5)
        return jnp.asarray(rng.uniform(low, high, leaf.shape), dtype)

    params = jax.tree_util.tree_map_with_path(draw, shapes.params)
    batch_stats = jax.tree_util.tree_map_with_path(draw, shapes.batch_stats)
    state = states.TrainState(jnp.zeros([], jnp.int32), params, batch_stats, tx.init(params))
    objective = Contrastive(model, loss)
    if microbatches > 1:
        objective = TwoPasses(objective, microbatches)
    step = partial(train_step, objective=objective, optimizer=optimizer._replace(tx=tx))
    return state, step


def batches(dtype=np.float64):
    rng = np.random.default_rng(3)
    for _ in range(STEPS):
        yield {
            "image": rng.uniform(size=(BATCH, 2, SIZE, SIZE, 3)).astype(dtype),
            "label": rng.integers(0, CLASSES, BATCH).astype(np.int32),
            "blur_sigma": np.zeros((BATCH, 2), np.float32),
        }


def run(mesh, dtype=jnp.float64, order=None, **kwargs):
    """States and metrics after each of three steps on a mesh."""
    state, step = build(dtype, mesh=mesh, **kwargs)
    state = jax.device_put(state, meshes.replicated(mesh))
    jitted = jax.jit(step, out_shardings=meshes.replicated(mesh))
    history = []
    for batch in batches(np.dtype(dtype)):
        if order is not None:
            batch = {key: value[order] for key, value in batch.items()}
        state, metrics = jitted(state, meshes.put(batch, mesh))
        history.append(jax.tree.map(np.asarray, (state, metrics)))
    assert jitted._cache_size() == 1
    return history


def worst(history, other):
    """The largest difference of any array, relative to that array's largest value."""
    difference = 0.0
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(history), jax.tree.leaves(other), strict=True
    ):
        scale = np.abs(a).max()
        if scale > 0:
            relative = np.abs(a.astype(np.float64) - b).max() / scale
            assert np.isfinite(relative), path
            difference = max(difference, relative)
    return difference


@pytest.fixture(scope="module")
def one_device(mesh1):
    with jax.enable_x64(True):
        return run(mesh1)


def test_eight_devices_equal_one_in_float64(one_device, mesh8):
    """Metrics, every gradient, parameters, statistics and optimizer state, over three steps."""
    with jax.enable_x64(True):
        assert worst(one_device, run(mesh8)) < 1e-9
    gradients = one_device[0][0].opt_state[0].gradient
    assert all(np.abs(gradient).max() > 0 for gradient in jax.tree.leaves(gradients))


@pytest.mark.slow
def test_float32_differs_no_more_than_by_permuting_the_batch(mesh1, mesh8):
    one, eight = run(mesh1, jnp.float32), run(mesh8, jnp.float32)
    permuted = run(mesh1, jnp.float32, order=np.random.default_rng(0).permutation(BATCH))
    (state1, metrics1), (state8, metrics8), (state_p, _) = one[0], eight[0], permuted[0]
    np.testing.assert_allclose(metrics8["loss"], metrics1["loss"], rtol=1e-5)
    assert worst(state1.batch_stats, state8.batch_stats) < 1e-5
    floor = worst(state1.opt_state, state_p.opt_state)
    assert worst(state1.opt_state, state8.opt_state) <= 3 * floor


def local_negatives(z_a, z_b):
    """A bug: each of eight devices contrasts only its own rows."""
    groups = z_a.reshape(8, -1, z_a.shape[-1]), z_b.reshape(8, -1, z_b.shape[-1])
    loss, metrics = jax.vmap(nt_xent)(*groups)
    return loss.mean(), jax.tree.map(jnp.mean, metrics)


def half(z_a, z_b):
    """A bug: the mean over 2N rows, without the factor 2."""
    loss, metrics = nt_xent(z_a, z_b)
    return loss / 2, metrics


def with_self(z_a, z_b):
    """A bug: a row's similarity with itself is kept among the negatives."""
    z = losses.l2_normalize(jnp.concatenate([z_a, z_b]))
    logits = z @ z.T / 0.2
    n = len(z_a)
    positive = jnp.concatenate([jnp.diagonal(logits, n), jnp.diagonal(logits, -n)])
    loss = 2 * jnp.mean(jax.nn.logsumexp(logits, axis=1) - positive)
    return loss, nt_xent(z_a, z_b)[1]


def decay_mask_alone():
    return optax.lars(
        rate, weight_decay=1e-2, weight_decay_mask=optim.lars_mask, trust_coefficient=0.001,
        trust_ratio_mask=True, momentum=0.9,
    )  # fmt: skip


@pytest.mark.slow  # verify_test plants the same kind of bugs
@pytest.mark.parametrize(
    "bug",
    [
        {"loss": local_negatives},
        {"loss": half},
        {"loss": with_self},
        {"tx": decay_mask_alone()},
    ],
    ids=["local negatives", "no factor 2", "self-similarity", "one LARS mask"],
)
def test_planted_bugs_are_seen(one_device, mesh8, bug):
    with jax.enable_x64(True):
        assert worst(one_device, run(mesh8, **bug)) > 1e-3


def test_batch_norm_per_device_is_seen(one_device):
    """The step on each device's rows alone, then averaged, as a forgotten sync would do."""
    with jax.enable_x64(True):
        state, step = build(jnp.float64)
        batch = next(batches())
        shards = jax.tree.map(lambda x: x.reshape(8, -1, *x.shape[1:]), batch)
        local = jax.jit(jax.vmap(lambda rows: step(state, rows)[0].batch_stats))(shards)
        averaged = jax.tree.map(lambda x: np.asarray(x.mean(axis=0)), local)
        assert worst(one_device[0][0].batch_stats, averaged) > 1e-3


def test_labels_do_not_reach_the_encoder():
    """Encoder and head gradients with and without labels are the same bits."""
    gradients = []
    for classes in (CLASSES, 0):
        state, step = build(jnp.float32, classes=classes)
        after, metrics = jax.jit(step)(state, next(batches(np.float32)))
        gradients.append([after.opt_state[0].gradient[part] for part in ("encoder", "head")])
        assert ("online_accuracy" in metrics) == (classes > 0)
    for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_array_equal(a, b)

"""A small network's train step, its batches, and the comparison of two runs of it."""

import zlib
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from simclr_jax import losses, optim
from simclr_jax import mesh as meshes
from simclr_jax import state as states
from simclr_jax.models.simclr import SimCLR
from simclr_jax.objectives.contrastive import Contrastive
from simclr_jax.objectives.microbatches import divided
from simclr_jax.objectives.supervised import Supervised
from simclr_jax.step import train_step
from simclr_jax.verify import recorder

BATCH, SIZE, CLASSES, STEPS = 24, 8, 3, 3  # 24 rows: three a device, and no power of two


def nt_xent(z_a, z_b, **kwargs):
    return losses.nt_xent(z_a, z_b, temperature=0.2, **kwargs)


def rate(step):
    return jnp.asarray([0.5, 0.3, 0.2], jnp.float32)[step]


def build(
    dtype, *, mesh=None, loss=None, tx=None, optimizer="lars", classes=CLASSES, microbatches=1,
    width=1 / 16, objective=None, shard_state=False, **model,
):  # fmt: skip
    """(state, step) of a small network, with an objective that is made of the network.

    Every parameter is drawn at random: batch-norm scales that start at 0 would hide most of the
    network from the tests.
    """
    model = SimCLR(
        depth=10, width=width, stem="small", head_dim=6, classes=classes, dtype=dtype, **model
    )
    if loss is None:
        gather = partial(meshes.replicate, mesh=mesh) if mesh else losses.identity
        loss = partial(nt_xent, block_rows=BATCH, gather=gather)
    optimizer = optim.optimizer(optimizer, rate, weight_decay=1e-2)
    tx = optax.chain(recorder(), tx or optimizer.tx)
    shapes = jax.eval_shape(partial(states.initialize, model, tx, seed=0, image_size=SIZE))

    def draw(path, leaf):
        name = "/".join(key.key for key in path)
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        low, high = (0.5, 1.5) if path[-1].key in ("scale", "var") else (-0.5, 0.5)
        return jnp.asarray(rng.uniform(low, high, leaf.shape), dtype)

    params = jax.tree_util.tree_map_with_path(draw, shapes.params)
    batch_stats = jax.tree_util.tree_map_with_path(draw, shapes.batch_stats)
    slots = tx.init(states.trained(params, model.is_frozen))
    state = states.TrainState(jnp.zeros([], jnp.int32), params, batch_stats, slots)
    if objective is None:
        objective = Supervised if model.end_to_end else partial(Contrastive, loss=loss)
    step = partial(
        train_step, objective=divided(objective(model), microbatches),
        optimizer=optimizer._replace(tx=tx), frozen=model.is_frozen,
        **({"divide": partial(meshes.divide, mesh=mesh)} if shard_state else {}),
    )  # fmt: skip
    return state, step


def batches(dtype=np.float64, views=2, several=False):
    """Batches of three steps; with `several` labels of an image, of which some do not count."""
    rng = np.random.default_rng(3)
    for _ in range(STEPS):
        yield {
            "image": rng.uniform(size=(BATCH, views, SIZE, SIZE, 3)).astype(dtype),
            "label": rng.integers(-1, 2, (BATCH, CLASSES), np.int8)
            if several
            else rng.integers(0, CLASSES, BATCH).astype(np.int32),
            "blur_sigma": np.zeros((BATCH, views), np.float32),
        }


def run(mesh, dtype=jnp.float64, order=None, views=2, several=False, shard_state=False, **kwargs):
    """States and metrics after each of three steps on a mesh; the step is compiled once."""
    state, step = build(dtype, mesh=mesh, shard_state=shard_state, **kwargs)
    placed = states.shardings(lambda: state, mesh, divide=shard_state)
    state = jax.device_put(state, placed)
    chex.clear_trace_counter()  # It counts by where the function is made, not by the function.

    @chex.assert_max_traces(n=1)
    def traced(state, batch):
        return step(state, batch)

    jitted = jax.jit(traced, out_shardings=(placed, meshes.replicated(mesh)))
    history = []
    for batch in batches(np.dtype(dtype), views, several):
        if order is not None:
            batch = {key: value[order] for key, value in batch.items()}
        state, metrics = jitted(state, meshes.put(batch, mesh))
        assert all(
            leaf.sharding.is_equivalent_to(meshes.divided(leaf.shape, mesh), leaf.ndim)
            for leaf in jax.tree.leaves(state.opt_state)
            if shard_state
        )
        history.append(jax.tree.map(np.asarray, (state, metrics)))
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

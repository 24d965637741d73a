"""The sharded step equals the one-device step, and bugs that would break it are seen to."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from simclr_jax import losses, optim
from simclr_jax import mesh as meshes
from simclr_jax import state as states
from simclr_jax.config import overrides, parts
from simclr_jax.objectives.microbatches import divided
from simclr_jax.step import measure
from simclr_jax.tpu import compiled
from support.steps import BATCH, CLASSES, batches, build, nt_xent, rate, run, worst


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
@pytest.mark.parametrize(("name", "rounding"), [("lars", 1e-12), ("adam", 1e-10)])
def test_with_its_state_split_the_optimizer_computes_the_same(
    name, rounding, one_device, mesh1, mesh8
):
    """Metrics, every gradient, parameters, statistics and optimizer state, over three steps.

    Adam's first steps divide a gradient by its own size, rounding included; LARS's do not.
    """
    with jax.enable_x64(True):
        whole = run(mesh8, optimizer=name)
        split = run(mesh8, optimizer=name, shard_state=True)
    assert worst(whole, split) < rounding
    if name == "lars":
        assert worst(one_device, split) < 1e-9


@pytest.mark.parametrize("microbatches", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_measures_on_eight_devices_equal_one_in_float64(microbatches, mesh1, mesh8):
    """The embeddings of all but two images are kept, and LARS's ratios follow from the gradient."""
    found = []
    with jax.enable_x64(True):
        for mesh in (mesh1, mesh8):
            state, step = build(jnp.float64, mesh=mesh, microbatches=microbatches)
            objective, optimizer = step.keywords["objective"], step.keywords["optimizer"]
            one = getattr(objective, "objective", objective).replace(kept=BATCH - 2)
            measured = jax.jit(partial(
                measure, objective=divided(one, microbatches), optimizer=optimizer
            ))  # fmt: skip
            batch = meshes.put(next(batches()), mesh)
            state = jax.device_put(state, meshes.replicated(mesh))
            found.append(jax.tree.map(np.asarray, measured(state.params, state.batch_stats, batch)))
            after = jax.jit(step)(state, batch)[0]
        assert worst(*found) < 1e-9
        gradient, params = after.opt_state[0].gradient, state.params
    ratios = [
        1e-3 * np.linalg.norm(w) / np.linalg.norm(np.asarray(g) + 1e-2 * np.asarray(w))
        for g, w, on in zip(
            *map(jax.tree.leaves, (gradient, params, optim.lars_mask(params))), strict=True
        )
        if on
    ]
    measures = found[0]
    for name, of in (("min", min), ("median", np.median), ("max", max)):
        np.testing.assert_allclose(measures[f"trust_ratio_{name}"], of(ratios), rtol=1e-9)
    squares = sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(params))
    np.testing.assert_allclose(measures["param_norm"], np.sqrt(squares), rtol=1e-9)
    assert measures["embeddings"].shape == (BATCH - 2, 2, 6)


@pytest.mark.parametrize("microbatches", [1, pytest.param(1024, marks=pytest.mark.slow)])
def test_the_largest_batch_that_a_config_may_have_is_traced(microbatches, mesh8):
    """No number of pairs passes for a 32-bit integer; the traced program holds no array of them."""
    config = overrides.load(["--config=digits", "--config.model.width=0.0625"])
    config = overrides.changed(config, {
        "data.num_examples": 2**20, "data.num_classes": 10, "data.image_size": 8,
        "train.batch_size": 2**20, "train.microbatches": microbatches,
    })  # fmt: skip
    built = parts.build(config, mesh8)
    state = states.abstract(built.initial, mesh8)
    after, metrics = jax.eval_shape(
        built.jitted, state, compiled.batch(config, mesh8), built.objective
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    assert all(metric.shape == () for metric in metrics.values())
    row = jax.ShapeDtypeStruct((2**20, 8), jnp.float32)
    for of_rows in (parts.loss(config, 2**20), losses.collapse):
        jax.eval_shape(of_rows, row, row)


@pytest.mark.slow
def test_float32_differs_no_more_than_by_permuting_the_batch(mesh1, mesh8):
    one, eight = run(mesh1, jnp.float32), run(mesh8, jnp.float32)
    permuted = run(mesh1, jnp.float32, order=np.random.default_rng(0).permutation(BATCH))
    (state1, metrics1), (state8, metrics8), (state_p, _) = one[0], eight[0], permuted[0]
    np.testing.assert_allclose(metrics8["loss"], metrics1["loss"], rtol=1e-5)
    assert worst(state1.batch_stats, state8.batch_stats) < 1e-5
    floor = worst(state1.opt_state, state_p.opt_state)
    assert worst(state1.opt_state, state8.opt_state) <= 3 * floor


@pytest.mark.parametrize("name", ["lars", pytest.param("momentum", marks=pytest.mark.slow)])
def test_frozen_parts_stay_to_the_bit_and_have_no_slots(name, mesh1):
    """Three supervised steps, in three microbatches, with weight decay in the loss or in LARS."""
    model = {"end_to_end": True, "frozen": "stage2", "optimizer": name, "microbatches": 3}
    before, _ = build(jnp.float32, **model)
    after, _ = run(mesh1, jnp.float32, views=1, **model)[-1]
    frozen = {"stem_conv", "stem_bn", "group1_block1", "group2_block1"}
    pairs = [(before.params, after.params), (before.batch_stats, after.batch_stats)]
    for old, new in pairs:
        for module in new["encoder"]:
            same = jax.tree.map(np.array_equal, old["encoder"][module], new["encoder"][module])
            assert set(jax.tree.leaves(same)) == {module in frozen}, module
        chex.assert_trees_all_equal(new["head"], old["head"])  # It lies behind the classifier.
    slots = {
        key.key for path, _ in jax.tree_util.tree_leaves_with_path(after.opt_state)
        for key in path if hasattr(key, "key")
    }  # fmt: skip
    assert "group3_block1" in slots
    assert not slots & {*frozen, "head"}


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


@pytest.mark.slow  # simclr_test holds that the classifier does not train the encoder
def test_labels_do_not_reach_the_encoder():
    """Encoder and head gradients with and without labels are the same bits."""
    gradients = []
    for classes in (CLASSES, 0):
        state, step = build(jnp.float32, classes=classes)
        after, metrics = jax.jit(step)(state, next(batches(np.float32)))
        gradients.append([after.opt_state[0].gradient[part] for part in ("encoder", "head")])
        assert ("online_accuracy" in metrics) == (classes > 0)
    chex.assert_trees_all_equal(*gradients)

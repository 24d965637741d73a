"""The supervised step: one device or eight, whole or in parts, against numerical derivatives."""

from functools import reduce
from operator import getitem

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from support.steps import batches, build, run, worst

MODEL = {"end_to_end": True, "classifier_layer": "head1", "head_layers": 3}
FINE_TUNED = {**MODEL, "views": 1}


@pytest.fixture(scope="module")
def one_device(mesh1):
    with jax.enable_x64(True):
        return run(mesh1, **FINE_TUNED)


def test_eight_devices_equal_one_in_float64_and_what_lies_behind_the_classifier_rests(
    one_device, mesh8
):
    """Metrics, gradients, parameters, statistics and slots, with LARS and its decay."""
    with jax.enable_x64(True):
        assert worst(one_device, run(mesh8, **FINE_TUNED)) < 1e-9
        first, _ = build(jnp.float64, **MODEL)
    last = one_device[-1][0]
    for before, after in ((first.params, last.params), (first.batch_stats, last.batch_stats)):
        for module, arrays in after["head"].items():
            same = [np.array_equal(arrays[key], before["head"][module][key]) for key in arrays]
            assert same == [module[-1] != "1"] * len(same), module
    gradient = last.opt_state[0].gradient
    assert set(gradient["head"]) == {"dense1", "bn1"}
    assert all(np.abs(array).max() > 0 for array in jax.tree.leaves(gradient))


def test_the_gradient_is_the_derivative_of_the_cross_entropy_and_its_decay(one_device):
    """Along a random direction, by central differences of a loss computed beside it."""
    with jax.enable_x64(True):
        state, step = build(jnp.float64, **MODEL)
        model, batch = step.keywords["objective"].model, next(batches(views=1))
        rng = np.random.default_rng(0)
        direction = jax.tree.map(lambda x: rng.normal(size=x.shape), state.params)

        @jax.jit
        def loss(distance):
            params = jax.tree.map(lambda x, d: x + distance * d, state.params, direction)
            outputs, _ = model.apply(
                {"params": params, "batch_stats": state.batch_stats}, batch["image"][:, 0],
                train=True, mutable=["batch_stats"],
            )  # fmt: skip
            kernel = params["classifier"]["dense"]["kernel"]
            labels = jax.nn.one_hot(batch["label"], 3)
            loss = optax.softmax_cross_entropy(outputs.logits, labels).mean()
            return loss + 0.5 * 1e-2 * (kernel**2).sum()

        after, metrics = one_device[0]
        gradient = after.opt_state[0].gradient
        slope = sum(
            (array * reduce(getitem, path, direction)).sum()
            for path, array in flatten_dict(gradient).items()
        )
        np.testing.assert_allclose(slope, (loss(1e-6) - loss(-1e-6)) / 2e-6, rtol=1e-5)
        np.testing.assert_allclose(metrics["loss"], loss(0.0), rtol=1e-9)


@pytest.mark.slow
def test_with_moving_averages_microbatches_equal_the_whole_batch(mesh1, mesh8):
    with jax.enable_x64(True):
        whole = run(mesh1, running_norm=True, **FINE_TUNED)
        divided = run(mesh8, running_norm=True, microbatches=3, **FINE_TUNED)
    assert worst(whole, divided) < 1e-9


@pytest.mark.slow
def test_with_their_own_statistics_microbatches_are_the_mean_of_theirs():
    """Two microbatches lack labels in part; every labelled image counts the same."""
    with jax.enable_x64(True):
        _, step = build(jnp.float64, end_to_end=True, microbatches=3)
        state, _ = build(jnp.float64, end_to_end=True)
        divided = step.keywords["objective"]
        batch = next(batches(views=1))
        batch["label"][[0, 3, 6, 7]] = -1
        found = jax.jit(divided)(state.params, state.batch_stats, batch)
        whole = jax.jit(divided.objective)
        parts = [whole(state.params, state.batch_stats, {k: x[r::3] for k, x in batch.items()})
                 for r in range(3)]  # fmt: skip
        labelled = [int((batch["label"][r::3] >= 0).sum()) for r in range(3)]
        assert labelled == [5, 7, 8]
        expected = jax.tree.map(
            lambda *xs: sum(n * x for n, x in zip(labelled, xs, strict=True)) / 20,
            *[(part.gradients, part.metrics) for part in parts],
        )
        assert worst(expected, (found.gradients, found.metrics)) < 1e-9

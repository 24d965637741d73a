"""The step of distillation: one device or eight, whole or in parts, against its definition."""

from functools import partial, reduce
from operator import getitem

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from simclr_jax.objectives.distilled import Distilled, Teacher, mixture
from support import steps

TEMPERATURE, LABEL_WEIGHT = 2.0, 0.3
STUDENT = {"end_to_end": True, "views": 1}


def distilled(model, weights=1e-3):
    """An objective for a student, with a wider teacher whose classifier sits on the head.

    Its classifier's weights are small enough for it to be unsure.
    """
    state, step = steps.build(jnp.float64, end_to_end=True, classifier_layer="head1", width=1 / 8)
    params = {**state.params, "classifier": None}
    params["classifier"] = jax.tree.map(lambda x: x * weights, state.params["classifier"])
    network = step.keywords["objective"].model
    variables = {"params": params, "batch_stats": state.batch_stats}
    return Distilled(model, Teacher(network, variables), mixture(TEMPERATURE, LABEL_WEIGHT))


def some_labels():
    """A batch of one view an image, of which a third have no label."""
    batch = next(steps.batches(views=1))
    batch["label"][::3] = -1
    return batch


@pytest.mark.slow
def test_the_gradient_is_the_derivative_of_both_equations_and_the_teacher_is_an_argument():
    """Along a random direction, by central differences of a loss computed beside it."""
    with jax.enable_x64(True):
        state, step = steps.build(jnp.float64, end_to_end=True)
        objective = distilled(step.keywords["objective"].model)
        batch = some_labels()
        found = jax.jit(lambda objective, *args: objective(*args))
        gradients, _, metrics = found(objective, state.params, state.batch_stats, batch)

        teacher = objective.teacher
        direction = jax.tree.map(
            lambda x: np.random.default_rng(x.size).normal(size=x.shape), state.params
        )

        @jax.jit
        def loss(distance):
            params = jax.tree.map(lambda x, d: x + distance * d, state.params, direction)
            outputs, _ = objective.model.apply(
                {"params": params, "batch_stats": state.batch_stats}, batch["image"][:, 0],
                train=True, mutable=["batch_stats"],
            )  # fmt: skip
            taught = teacher.model.apply(teacher.variables, batch["image"][:, 0], train=False)
            soft = jax.nn.softmax(taught.logits / TEMPERATURE)
            mean = optax.softmax_cross_entropy(outputs.logits / TEMPERATURE, soft).mean()
            seen = np.flatnonzero(batch["label"] >= 0)
            labelled = optax.softmax_cross_entropy_with_integer_labels(
                outputs.logits[seen], batch["label"][seen]
            )
            return 0.7 * TEMPERATURE**2 * mean + 0.3 * labelled.mean()

        slope = sum(
            (array * reduce(getitem, path, direction)).sum()
            for path, array in flatten_dict(gradients).items()
        )
        np.testing.assert_allclose(slope, (loss(1e-6) - loss(-1e-6)) / 2e-6, rtol=1e-5)
        np.testing.assert_allclose(metrics["loss"], loss(0.0), rtol=1e-9)

        other = distilled(objective.model, weights=2e-3).teacher
        again = found(objective.replace(teacher=other), state.params, state.batch_stats, batch)
        assert again.metrics["distillation_loss"] != metrics["distillation_loss"]
        assert found._cache_size() == 1  # No weight is a part of the program.


@pytest.mark.slow
def test_eight_devices_in_microbatches_equal_one_with_the_whole_batch_in_float64(mesh1, mesh8):
    """Metrics, gradients, parameters and slots, with batch norm by the moving averages."""
    run = partial(steps.run, objective=distilled, running_norm=True, **STUDENT)
    with jax.enable_x64(True):
        whole = run(mesh1)
        assert steps.worst(whole, run(mesh8, microbatches=3)) < 1e-9
    assert len({float(metrics["distillation_loss"]) for _, metrics in whole}) == steps.STEPS

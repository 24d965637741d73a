"""The supervised step: one device or eight, whole or in parts, against numerical derivatives."""

import dataclasses
from functools import reduce
from operator import getitem

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from simclr_jax import mesh as meshes
from simclr_jax.config import overrides, parts
from simclr_jax.weights.authors import from_reference
from support import authors_step
from support.authors_names import named
from support.steps import batches, build, rate, run, worst

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


def is_behind(name):
    """Whether an array belongs to layers 2 and 3 of the head, behind the classifier's."""
    return name.startswith(("_projection_head.linear_layers.1", "_projection_head.linear_layers.2"))


def names_of(state, style="object"):
    return named({"params": state.params, "batch_stats": state.batch_stats})[style]


def check_authors_steps(first, history, images_and_labels, rates, *, decay):
    """Compares steps from head layer 1 with the authors'; theirs also update averages behind it."""
    start = names_of(first)
    theirs = authors_step.steps(
        start, [*names_of(first, "keras")], images_and_labels, rates, decay=decay, selector=1
    )
    for (state, metrics), (expected, penalty, loss, norm) in zip(history, theirs, strict=True):
        np.testing.assert_allclose(metrics["weight_decay_loss"], penalty, rtol=1e-9)
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-9)
        np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-9)
        for name, array in names_of(state).items():
            assert array.dtype == np.float64
            if is_behind(name):
                np.testing.assert_array_equal(array, start[name], err_msg=name)
                assert np.array_equal(expected[name], array) == ("moving" not in name), name
            else:
                np.testing.assert_allclose(
                    array, expected[name], rtol=1e-9, atol=1e-12, err_msg=name
                )
                assert not np.array_equal(array, start[name]), name


def test_fine_tuning_from_head_layer_1_is_the_authors_step(one_device):
    """Every array, the loss and its penalty over three steps of LARS with weight decay."""
    with jax.enable_x64(True):
        first, _ = build(jnp.float64, **MODEL)
        check_authors_steps(
            first, one_device, [(b["image"][:, 0], b["label"]) for b in batches(views=1)],
            [float(rate(step)) for step in range(3)], decay=1e-2,
        )  # fmt: skip


@pytest.mark.slow
def test_a_config_builds_the_authors_fine_tuning(mesh1, rng):
    """Without weight decay, by `parts.build`, with weights that are a function of their names."""
    config = overrides.load([
        "--config=digits", "--config.objective.name=supervised",
        "--config.model.classifier_layer=head1", "--config.model.head_layers=3",
        "--config.optim.name=lars", "--config.optim.lr=0.005", "--config.optim.lr_scaling=sqrt",
        "--config.optim.weight_decay=0.0", "--config.optim.warmup_epochs=0.0",
        "--config.model.width=0.0625", "--config.data.image_size=32",
        "--config.train.batch_size=16", "--config.train.steps=5",
    ])  # fmt: skip
    config = overrides.changed(
        config,
        {
            "data.num_examples": 160,
            "data.num_classes": 10,
            "model.dtype": "float64",
            "model.depth": 10,
        },
    )
    with jax.enable_x64(True):
        built = parts.build(config, mesh1)
        wide = {np.dtype(np.float32): np.float64}
        state = jax.tree.map(
            lambda x: jnp.zeros(x.shape, wide.get(x.dtype, x.dtype)), jax.eval_shape(built.initial)
        )
        variables = {name: authors_step.drawn(name, x.shape) for name, x in names_of(state).items()}
        _, params, batch_stats = from_reference(variables, classifier_layer="head1")
        state = first = dataclasses.replace(state, params=params, batch_stats=batch_stats)
        history, seen = [], []
        for _ in range(4):
            images, labels = rng.uniform(size=(16, 1, 32, 32, 3)), rng.integers(0, 10, 16)
            batch = {"image": images, "label": labels.astype(np.int32)}
            state, metrics = built.step(state, meshes.put(batch, mesh1))
            history.append(jax.tree.map(np.asarray, (state, metrics)))
            seen.append((images[:, 0], labels))
    cosine = [0.005 * 4 * 0.5 * (1 + np.cos(np.pi * step / 5)) for step in range(4)]
    rates = [float(metrics["learning_rate"]) for _, metrics in history]
    np.testing.assert_allclose(rates, cosine, rtol=1e-6)  # The schedule is in float32.
    with jax.enable_x64(True):
        check_authors_steps(first, history, seen, rates, decay=0.0)


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


@pytest.mark.slow
def test_microbatches_of_images_of_several_labels_on_eight_devices_equal_the_whole(mesh1, mesh8):
    """Each label that counts weighs the same, though the microbatches have different numbers."""
    options = {**MODEL, "running_norm": True, "several": True}
    with jax.enable_x64(True):
        whole = run(mesh1, **options)
        assert worst(whole, run(mesh8, **options, microbatches=3)) < 1e-9
    assert {"loss", "classifier_loss", "train_accuracy"} <= set(whole[0][1])

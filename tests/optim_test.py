"""Optimizers against their equations in NumPy, and the masks against the parameters."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from simclr_jax import optim
from simclr_jax.errors import ArgumentError
from simclr_jax.models.simclr import SimCLR


@pytest.fixture
def params(rng):
    def leaf(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return {
        "encoder": {
            "conv1": {"kernel": leaf(3, 3, 2, 4)},
            "bn1": {"scale": leaf(4), "bias": leaf(4)},
            "dead": {"kernel": jnp.zeros((2, 2))},
        },
        "head": {"dense1": {"kernel": leaf(4, 4)}},
        "classifier": {"dense": {"kernel": leaf(4, 3), "bias": leaf(3)}},
    }


def test_an_unknown_name_is_answered_with_those_there_are(params):
    for call in (
        lambda: optim.optimizer("sgd", optax.constant_schedule(1.0), weight_decay=0.0),
        lambda: optim.loss_decay_mask("sgd", params),
    ):
        with pytest.raises(
            ArgumentError, match="'sgd': must be one of lars, momentum, adam, adamw"
        ):
            call()
    with pytest.raises(ArgumentError, match="scaling='cubic': must be one of linear, sqrt, none"):
        optim.peak_learning_rate(0.3, 256, "cubic")


ADAPTED = {"encoder/conv1/kernel", "encoder/dead/kernel", "head/dense1/kernel"}


def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}


def run(tx, params, rng, steps=4):
    """(initial, gradients of each step, final) of `steps` updates, all as flat dicts."""
    state, history, current = tx.init(params), [], params
    for _ in range(steps):
        grads = jax.tree.map(lambda w: jnp.asarray(rng.normal(size=w.shape), w.dtype), params)
        updates, state = tx.update(grads, state, current)
        current = optax.apply_updates(current, updates)
        history.append(flat(grads))
    return flat(params), history, flat(current)


RATES = [0.0, 0.3, 1.0, 0.2]


def rate(step):
    return jnp.asarray(RATES)[step]


def test_lars_equals_its_equations(params, rng):
    before, history, after = run(optim.lars(rate, weight_decay=0.01), params, rng)
    for name, w in before.items():
        w, v = w.astype(np.float64), 0.0
        for lr, grads in zip(RATES, history, strict=True):
            g = grads[name].astype(np.float64)
            trust = 1.0
            if name in ADAPTED:
                g = g + 0.01 * w
                if np.linalg.norm(w) > 0 and np.linalg.norm(g) > 0:
                    trust = 0.001 * np.linalg.norm(w) / np.linalg.norm(g)
            v = 0.9 * v + lr * trust * g
            w = w - v
        np.testing.assert_allclose(after[name], w, rtol=2e-5, atol=1e-6, err_msg=name)


def test_lars_has_the_state_and_the_numbers_of_optax(params, rng):
    """Checkpoints that were written with `optax.lars` go on."""
    given = {"weight_decay": 0.01, "weight_decay_mask": optim.lars_mask}
    adapted = {"trust_coefficient": 0.001, "trust_ratio_mask": optim.lars_mask, "momentum": 0.9}
    theirs, ours = optax.lars(rate, **given, **adapted), optim.lars(rate, weight_decay=0.01)
    chex.assert_trees_all_equal(theirs.init(params), ours.init(params))
    grads = jax.tree.map(lambda w: jnp.asarray(rng.normal(size=w.shape), w.dtype), params)
    state = ours.update(grads, ours.init(params), params)[1]
    chex.assert_trees_all_close(
        theirs.update(grads, state, params), ours.update(grads, state, params), rtol=1e-6
    )


def test_momentum_is_nesterov_with_the_rate_inside_the_velocity(params, rng):
    before, history, after = run(optim.momentum(rate), params, rng)
    for name, w in before.items():
        v = 0.0
        for lr, grads in zip(RATES, history, strict=True):
            v = 0.9 * v - lr * grads[name]
            w = w + 0.9 * v - lr * grads[name]
        np.testing.assert_allclose(after[name], w, rtol=2e-5, atol=1e-6, err_msg=name)


def test_adam_adds_epsilon_before_the_bias_correction(params, rng):
    tiny = jax.tree.map(lambda w: w * 1e-6, params)  # where the place of epsilon shows
    grads = tiny
    updates, _ = optim.adam(lambda step: 0.1).update(grads, optim.adam(rate).init(tiny), tiny)
    for name, g in flat(grads).items():
        m, v = 0.1 * g, 0.001 * g.astype(np.float64) ** 2
        expected = -0.1 * np.sqrt(0.001) / 0.1 * m / (np.sqrt(v) + 1e-7)
        np.testing.assert_allclose(flat(updates)[name], expected, rtol=1e-4, err_msg=name)


def test_adamw_decays_kernels_alone(params):
    tx = optim.adamw(lambda step: 0.5, weight_decay=0.1)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zero, tx.init(params), params)
    for name, update in flat(updates).items():
        decayed = 0.5 * 0.1 * flat(params)[name] if name.endswith("kernel") else 0.0
        np.testing.assert_allclose(update, -decayed + np.zeros_like(update), err_msg=name)


def test_every_parameter_is_decayed_by_exactly_one_rule_or_exempt():
    model = SimCLR(depth=50, width=1 / 16, sk_ratio=0.0625, se_ratio=0.25, classes=3)
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False)
    )["params"]
    lars, in_loss = optim.lars_mask(shapes), optim.loss_decay_mask("lars", shapes)
    for name, (in_lars, penalised) in flat_pairs(lars, in_loss).items():
        kernel = name.endswith("kernel")
        assert (in_lars, penalised) == (
            kernel and not name.startswith("classifier"),
            kernel and name.startswith("classifier"),
        ), name
    everything_but_bn = optim.loss_decay_mask("momentum", shapes)
    for name, decayed in flat(everything_but_bn).items():
        assert decayed == ("bn" not in name.split("/")[-2]), name
    assert not any(flat(optim.loss_decay_mask("adamw", shapes)).values())


def flat_pairs(a, b):
    a, b = flat(a), flat(b)
    return {name: (bool(a[name]), bool(b[name])) for name in a}


def test_a_parameter_without_a_rule_is_an_error():
    with pytest.raises(ValueError, match="no weight-decay rule for the parameter head/x/gate"):
        optim.lars_mask({"head": {"x": {"gate": jnp.ones(2)}}})


def test_penalty_is_half_the_squared_norm(params):
    mask = optim.loss_decay_mask("lars", params)
    kernel = params["classifier"]["dense"]["kernel"]
    np.testing.assert_allclose(optim.l2_penalty(params, mask), 0.5 * np.sum(kernel**2), rtol=1e-6)


def test_steps_and_peak_of_the_paper():
    counts = optim.step_counts(
        num_examples=1281167, batch_size=4096, epochs=100, warmup_epochs=10, steps=None
    )
    assert counts == (3127, 31279)
    assert optim.peak_learning_rate(0.3, 4096, "linear") == pytest.approx(4.8)
    assert optim.peak_learning_rate(0.075, 4096, "sqrt") == pytest.approx(4.8)
    assert optim.peak_learning_rate(0.3, 4096, "none") == 0.3


def test_steps_override_epochs():
    counts = optim.step_counts(
        num_examples=50000, batch_size=64, epochs=100, warmup_epochs=0.5, steps=1000
    )
    assert counts == (390, 1000)


def test_schedule_rises_from_zero_then_falls_as_a_cosine_to_zero():
    schedule = optim.warmup_cosine(4.8, 10, 110)
    steps = np.arange(111)
    expected = np.where(
        steps < 10, steps / 10 * 4.8, 2.4 * (1 + np.cos(np.pi * (steps - 10) / 100))
    )
    np.testing.assert_allclose(schedule(steps), expected, atol=1e-6)
    assert schedule(0) == 0.0
    assert schedule(10) == pytest.approx(4.8)


def test_a_run_may_end_inside_its_warmup():
    schedule = optim.warmup_cosine(1.0, 100, 50)
    np.testing.assert_allclose(schedule(49), 0.49, rtol=1e-6)

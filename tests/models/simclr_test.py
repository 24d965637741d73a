"""The encoder, the head and the classifier as one network."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simclr_jax.errors import ArgumentError
from simclr_jax.models.simclr import SimCLR

SMALL = {"depth": 10, "width": 1 / 16, "stem": "small", "head_dim": 6}


def test_unlabelled_data_have_no_classifier():
    model = SimCLR(depth=18, width=1 / 16, stem="small", classes=0)
    outputs, variables = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
    )
    assert outputs.logits is None
    assert "classifier" not in variables["params"]


def test_the_head_begins_at_h_and_the_classifier_sees_h_and_does_not_train_the_encoder():
    model = SimCLR(**SMALL, classes=3)
    images = jax.random.uniform(jax.random.key(1), (4, 8, 8, 3))

    @jax.jit
    def compute():
        outputs, variables = model.init_with_output(jax.random.key(0), images, train=False)

        def of_labels(params):
            return model.apply({**variables, "params": params}, images, train=False).logits.sum()

        return outputs, variables["params"], jax.grad(of_labels)(variables["params"])

    outputs, params, gradient = compute()
    chex.assert_trees_all_equal(outputs.z[0], outputs.h)
    chex.assert_shape([outputs.h, outputs.z[-1], outputs.logits], [(4, 32), (4, 6), (4, 3)])
    dense = params["classifier"]["dense"]
    np.testing.assert_allclose(
        outputs.logits, outputs.h @ dense["kernel"] + dense["bias"][None], atol=1e-6
    )
    for part in ("encoder", "head"):
        chex.assert_trees_all_equal(gradient[part], jax.tree.map(jnp.zeros_like, params[part]))
    assert jnp.abs(gradient["classifier"]["dense"]["kernel"]).max() > 0


@pytest.mark.parametrize(
    ("argument", "value", "allowed"),
    [
        ("head", "mlp", "none, linear, nonlinear"),
        ("depth", 19, "10, 14, 18, 34, 50, 101, 152, 200"),
        ("stem", "auto", "small, imagenet"),
        ("remat", "all", "none, block, stage"),
    ],
)
def test_an_unknown_part_is_answered_with_those_there_are(argument, value, allowed):
    model, images = SimCLR(**{**SMALL, argument: value}), jnp.zeros((1, 8, 8, 3))
    with pytest.raises(ArgumentError) as error:
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    assert {*str(error.value).split(": must be one of ")[1].split(", ")} == {*allowed.split(", ")}
    assert str(error.value).startswith(f"{argument}={value!r}: ")

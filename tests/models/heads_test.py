"""The projection head: its layers, and what each of them computes."""

import jax
import jax.numpy as jnp
import pytest

from simclr_jax.models.heads import ProjectionHead


def head_shapes(**kwargs):
    head = ProjectionHead(**kwargs)
    return jax.eval_shape(
        lambda: head.init_with_output(jax.random.key(0), jnp.zeros((4, 6)), train=True)
    )


@pytest.mark.parametrize(
    ("kind", "layers", "widths"),
    [
        ("none", 2, [6]),
        ("linear", 2, [6, 3]),
        ("nonlinear", 2, [6, 6, 3]),
        ("nonlinear", 3, [6, 6, 6, 3]),
        ("nonlinear", 5, [6, 6, 6, 6, 6, 3]),
    ],
)
def test_head_returns_h_and_every_layer(kind, layers, widths):
    outputs, variables = head_shapes(kind=kind, layers=layers, dim=3)
    assert [output.shape[-1] for output in outputs] == widths
    params = variables.get("params", {})
    for layer in range(1, len(widths)):
        last = layer == len(widths) - 1
        assert set(params[f"dense{layer}"]) == {"kernel"}
        assert set(params[f"bn{layer}"]) == ({"scale"} if last else {"scale", "bias"})


def test_hidden_layers_are_rectified_and_the_last_is_not():
    head = ProjectionHead(kind="nonlinear", layers=2, dim=64)
    h = jax.random.normal(jax.random.key(1), (8, 6))
    (_, hidden, z), _ = head.init_with_output(jax.random.key(0), h, train=False)
    assert hidden.min() == 0
    assert z.min() < 0

"""Convolutions: their padding, and that the products on a CPU are the same convolutions."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from simclr_jax.models.convolution import conv_layer


def xla(x, kernel, stride):
    """XLA's convolution with the padding of the authors' code."""
    size = kernel.shape[0]
    pads = [((size - 1) // 2, size // 2)] * 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_strided_convolution_is_the_unstrided_one_sampled(size, kernel, rng):
    """Padding must not depend on the stride: SAME at stride 2 would shift even sizes."""
    x = jnp.asarray(rng.normal(size=(1, size, size, 2)), jnp.float32)
    strided = conv_layer(3, kernel, 2, dtype=jnp.float32, name=None)
    plain = conv_layer(3, kernel, 1, dtype=jnp.float32, name=None)
    variables = strided.init(jax.random.key(0), x)
    expected = plain.apply(variables, x)[:, ::2, ::2]
    np.testing.assert_allclose(strided.apply(variables, x), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "size", "stride", "products"),
    [
        ((1, 1), 3, 1, True),
        ((2, 2), 3, 1, True),
        ((2, 1), 3, 1, True),
        ((4, 4), 3, 2, True),
        ((3, 3), 3, 2, True),
        ((1, 2), 2, 1, False),  # Its result is as wide as its kernel.
        ((2, 2), 4, 1, True),
        ((5, 5), 1, 2, True),
        ((2, 9), 3, 1, False),
        ((5, 5), 3, 2, False),
        ((2, 2), 1, 1, False),
    ],
    ids=str,
)
def test_products_are_the_convolution_and_its_gradients(shape, size, stride, products, rng):
    x = jnp.asarray(rng.normal(size=(3, *shape, 5)), jnp.float32)
    layer = conv_layer(4, size, stride, dtype=jnp.float32, name=None)
    kernel = layer.init(jax.random.key(0), x)["params"]["kernel"]
    weights = jnp.asarray(rng.normal(size=xla(x, kernel, stride).shape), jnp.float32)

    def results(convolution):
        def loss(x, kernel):
            y = convolution(x, kernel)
            return jnp.vdot(y, weights), y

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)).lower(x, kernel)

    ours = results(lambda x, kernel: layer.apply({"params": {"kernel": kernel}}, x)).compile()
    usual = results(lambda x, kernel: xla(x, kernel, stride)).compile()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        ours(x, kernel),
        usual(x, kernel),
    )
    assert "convolution(" in usual.as_text()
    assert ("convolution(" not in ours.as_text()) == products


def test_products_keep_the_dtype(rng):
    x = jnp.asarray(rng.normal(size=(3, 2, 2, 5)), jnp.float32)
    layer = conv_layer(4, 3, dtype=jnp.bfloat16, name=None)
    y, variables = layer.init_with_output(jax.random.key(0), x)
    assert y.dtype == jnp.bfloat16
    expected = xla(x, variables["params"]["kernel"], 1)
    np.testing.assert_allclose(y.astype(jnp.float32), expected, atol=0.05)
    assert variables["params"]["kernel"].dtype == jnp.float32


def test_a_number_of_images_that_is_not_known_is_kept_open():
    layer = conv_layer(4, 3, dtype=jnp.float32, name=None)
    kernel = jnp.ones((3, 3, 5, 4))
    (images,) = jax.export.symbolic_shape("n")
    x = jax.ShapeDtypeStruct((images, 2, 2, 5), jnp.float32)
    exported = jax.export.export(jax.jit(lambda x: layer.apply({"params": {"kernel": kernel}}, x)))
    y = exported(x).call(jnp.ones((7, 2, 2, 5)))
    np.testing.assert_allclose(y, np.full((7, 2, 2, 4), 4 * 5.0))

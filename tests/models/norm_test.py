"""Batch norm, and its pooled form against the two layers that it stands for."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simclr_jax.models.norm import PooledBatchNorm, batch_norm


class Norm(nn.Module):
    train: bool
    running: bool = False
    dtype: jnp.dtype = jnp.float32
    layer: type[nn.Module] = nn.BatchNorm

    @nn.compact
    def __call__(self, x):
        return batch_norm(
            train=self.train, running=self.running, dtype=self.dtype, name="bn", layer=self.layer
        )(x)


def test_batch_norm_keeps_the_biased_variance_with_momentum_0_9(rng):
    x = jnp.asarray(rng.normal(2.0, 3.0, size=(4, 1, 1, 2)), jnp.float32)
    layer = Norm(train=True, running=False)
    variables = layer.init(jax.random.key(0), x)
    y, updated = layer.apply(variables, x, mutable=["batch_stats"])
    mean, var = np.mean(x, axis=(0, 1, 2)), np.var(x, axis=(0, 1, 2))
    moving = updated["batch_stats"]["bn"]
    np.testing.assert_allclose(moving["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(moving["var"], 0.9 + 0.1 * var, rtol=1e-4)
    shape = (1, 1, 1, 2)
    expected = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + 1e-5)
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-5)


def signed_variables(channels):
    """Variables with scales of both signs."""
    keys = jax.random.split(jax.random.key(0), 4)
    scale, bias, mean = (jax.random.normal(key, (channels,)) for key in keys[:3])
    var = 0.5 + jax.random.uniform(keys[3], (channels,))
    return {
        "params": {"bn": {"scale": scale, "bias": bias}},
        "batch_stats": {"bn": {"mean": mean, "var": var}},
    }


def pooled_and_plain(x, weights, train, running, dtype):
    """The values, the updates and the gradients of both forms for x (N, H, W, C)."""

    def run(layer, then):
        def loss(params, x):
            model = Norm(train, running, dtype, layer)
            known = {**variables, "params": params}
            y, updated = model.apply(known, x.astype(dtype), mutable=["batch_stats"])
            y = then(y)
            return (nn.relu(y) * weights).sum(), (y, updated)

        variables = signed_variables(x.shape[-1])
        gradients = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
        return gradients(variables["params"], x)

    return (
        run(PooledBatchNorm, lambda y: y),
        run(nn.BatchNorm, lambda y: nn.max_pool(y, (3, 3), (2, 2), "SAME")),
    )


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(("train", "running"), [(True, False), (True, True), (False, False)])
def test_pooling_before_batch_norm_changes_no_value_average_or_gradient(size, train, running, rng):
    x = jnp.asarray(rng.normal(1.0, 2.0, size=(4, size, size, 6)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(4, 4, 4, 6)), jnp.float32)
    pooled, plain = pooled_and_plain(x, weights, train, running, jnp.float32)
    chex.assert_trees_all_close(pooled, plain, rtol=1e-4, atol=2e-5)
    signs = np.sign(signed_variables(6)["params"]["bn"]["scale"])
    assert set(signs) == {-1, 1}


def test_pooled_values_of_bfloat16_are_the_same_bits(rng):
    """Rounding keeps the order: the largest of rounded values is the largest one, rounded."""
    x = jnp.asarray(rng.normal(1.0, 2.0, size=(4, 8, 8, 6)), jnp.float32)
    pooled, plain = pooled_and_plain(x, 1.0, False, False, jnp.bfloat16)
    np.testing.assert_array_equal(pooled[1][0].astype(jnp.float32), plain[1][0].astype(jnp.float32))


def test_the_pooled_form_has_the_variables_of_batch_norm():
    def shapes(layer):
        model = Norm(train=True, layer=layer)
        return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((2, 8, 8, 3))))

    chex.assert_trees_all_equal_shapes_and_dtypes(shapes(PooledBatchNorm), shapes(nn.BatchNorm))

"""What lies on which device."""

import jax
import numpy as np
import pytest

from simclr_jax import mesh as meshes


def test_a_process_holds_the_rows_of_its_devices(mesh8):
    np.testing.assert_array_equal(meshes.local_rows(mesh8, 24), np.arange(24))


def test_a_batch_is_split_in_order(mesh8):
    rows = np.arange(24 * 2).reshape(24, 2)
    array = meshes.put({"rows": rows}, mesh8)["rows"]
    np.testing.assert_array_equal(array, rows)
    for k, shard in enumerate(array.addressable_shards):
        np.testing.assert_array_equal(shard.data, rows[3 * k : 3 * k + 3])


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        ((3, 3, 16, 64), (3, 3, 2, 64)),  # not along the last dimension, though it is the largest
        ((3, 24, 16, 64), (3, 3, 16, 64)),
        ((5, 64), (5, 8)),
        ((64,), (8,)),
        ((3, 12), (3, 12)),
        ((4,), (4,)),
        ((0, 4), (0, 4)),
        ((), ()),
    ],
)
def test_an_array_is_split_along_its_largest_dimension_that_the_devices_divide(shape, part, mesh8):
    sharding = meshes.divided(shape, mesh8)
    assert sharding.shard_shape(shape) == part
    assert (sharding == meshes.replicated(mesh8)) == (part == shape)


def test_an_unknown_compiler_option_is_left_out(monkeypatch, mesh8):
    meshes._accepted.cache_clear()
    real = jax.jit

    def refuse(fn, compiler_options=None, **kwargs):
        if compiler_options:
            raise ValueError("no such option")
        return real(fn, **kwargs)

    monkeypatch.setattr(meshes.jax, "jit", refuse)
    assert meshes.compiler_options(mesh8) == meshes.loop_options() == {}
    meshes._accepted.cache_clear()


@pytest.mark.parametrize("size", [8, 64])
def test_convolutions_with_the_options_are_the_same(size, mesh1):
    x = jax.random.normal(jax.random.key(0), (2, size, size, 3))
    w = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))

    def conv(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    fast = jax.jit(conv, compiler_options=meshes.compiler_options(mesh1))(x, w)
    np.testing.assert_allclose(fast, jax.jit(conv)(x, w), atol=1e-4)

"""NT-Xent a block of rows at a time: the same numbers in less memory, and little communication."""

import re
from functools import partial
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simclr_jax import losses
from simclr_jax import mesh as meshes
from simclr_jax.config import default, parts


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    ("images", "block_rows", "block_columns"),
    [(12, 8, None), (7, 4, 4), (6, 100, 4), (12, 8, 6), (12, 8, 2)],
)
def test_blocks_of_rows_equal_all_rows_at_once(rng, images, block_rows, block_columns, normalize):
    """Loss, metrics and both gradients; 7 images have no divisor, so a block has one of them.

    Twins at both ends of the batch are equally similar, and only the first can be correct.
    """
    with jax.enable_x64(True):
        z_a, z_b = (jnp.asarray(rng.normal(size=(images, 5))).at[-1].set(1.0) for _ in "ab")
        z_a, z_b = z_a.at[0].set(1.0), z_b.at[0].set(1.0)

        def compute(**block):
            def loss(z_a, z_b):
                return losses.nt_xent(z_a, z_b, temperature=0.1, normalize=normalize, **block)

            return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(z_a, z_b)

        tiled = compute(block_rows=block_rows, block_columns=block_columns)
        chex.assert_trees_all_close(compute(), tiled, rtol=1e-9, atol=1e-12)


def test_columns_are_in_equal_tiles_where_the_batch_has_divisors():
    """The fewest that are small enough; of a prime number of images, which has none, one tile."""
    found = [losses.count_tiles(images, 64) for images in (32, 33, 64, 96, 97, 4096)]
    assert found == [1, 3, 2, 3, 1, 128]


def test_a_tile_has_two_columns_at_least():
    with pytest.raises(ValueError, match="block_columns must be at least 2, got 1"):
        losses.count_tiles(8, 1)


@pytest.mark.parametrize(
    ("images", "devices", "rows", "columns"),
    [
        (64, 1, 128, 2**14),
        (4096, 1, 1024, 2048),
        (4096, 8, 1024 * 8, 2048),
        (32768, 32, 1024 * 32, 2048),
        (1042, 1, 2084, 1006),  # 2 x 521: blocks of four rows would be slow.
        (4168, 8, 4168 * 2, 2012),
    ],
)
def test_a_run_chooses_blocks_that_are_fast(images, devices, rows, columns, mesh8):
    mesh = {1: None, 8: mesh8}.get(devices, SimpleNamespace(size=devices))
    chosen = parts.loss(default.get_config(), images, mesh)
    assert (chosen.keywords["block_rows"], chosen.keywords["block_columns"]) == (rows, columns)


def test_rows_that_a_run_asks_for_are_kept():
    c = default.get_config()
    c.loss.block_rows = 64
    chosen = parts.loss(c, 1024)
    assert chosen.keywords["block_rows"] == 64
    assert chosen.keywords["block_columns"] == 2**15


def test_probabilities_of_huge_logits_are_those_of_all_rows_at_once(rng):
    """The entropy of few images that are compared by inner products."""
    z_a, z_b = (jnp.asarray(rng.normal(size=(16, 8)) * 1e4, jnp.float32) for _ in "ab")
    for block_columns in (None, 8):
        _, metrics = losses.nt_xent(
            z_a, z_b, temperature=0.1, normalize=False, block_rows=8, block_columns=block_columns
        )
        assert float(metrics["contrastive_entropy"]) == pytest.approx(0, abs=1e-6)


def test_blocks_stay_finite_at_low_temperature_and_without_negatives():
    z = jnp.concatenate([jnp.eye(4), jnp.zeros((2, 4))])
    for images, block_columns in ((6, None), (6, 4), (1, None)):
        loss, grad = jax.value_and_grad(
            lambda z, most=block_columns: losses.nt_xent(
                z, z, temperature=1e-3, block_rows=2, block_columns=most
            )[0]
        )(z[:images])
        assert np.isfinite(loss)
        assert np.isfinite(grad).all()


@pytest.mark.parametrize("name", ["nt_xent", "dcl"])
def test_a_run_has_a_tile_of_the_logits_in_memory(name):
    """At 2N = 16,384 on one device, by XLA's count: embeddings and their copies take 8 MiB each."""
    c = default.get_config()
    c.loss.name = name
    chosen = parts.loss(c, 8192)

    def loss(z):
        return chosen(z[0], z[1])[0]

    z = jax.ShapeDtypeStruct((2, 8192, 128), jnp.float32)
    compiled = jax.jit(jax.grad(loss)).lower(z).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2**20 * (8 * 6 + 8 * 3)


def test_blocks_need_memory_for_a_block_alone():
    """2N = 4,096 in blocks of 128 take a tenth of the dense one's memory, by XLA's count."""

    def memory(block_rows):
        def loss(z_a, z_b):
            return losses.nt_xent(z_a, z_b, temperature=0.1, block_rows=block_rows)[0]

        z = jax.ShapeDtypeStruct((2048, 16), jnp.float32)
        compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(z, z).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(128) < 0.1 * memory(None)


@pytest.mark.parametrize("images", [1, 6, 7, 12, 97, 360])
def test_blocks_are_equal_and_the_fewest_that_are_small_enough(images):
    for block_rows in range(2, 2 * images + 3):
        fits = [c for c in range(1, images + 1) if images % c == 0 and 2 * images <= c * block_rows]
        assert losses.count_blocks(images, block_rows) == min(fits)


@pytest.mark.parametrize("block_columns", [None, 32])
def test_rows_on_eight_devices_move_only_embeddings_and_a_row_of_statistics(mesh8, block_columns):
    """One gather of embeddings forward, one of (L, σ) backward, and no other array between."""
    sharding, images, dim = meshes.sharded(mesh8), 64, 16

    def loss(z_a, z_b):
        gather = partial(meshes.replicate, mesh=mesh8)
        return losses.nt_xent(
            z_a, z_b, temperature=0.1, block_rows=32, block_columns=block_columns, gather=gather
        )[0]

    z = jax.ShapeDtypeStruct((images, dim), jnp.float32, sharding=sharding)
    grad = jax.jit(jax.grad(loss, argnums=(0, 1)), out_shardings=sharding)
    text = grad.lower(z, z).compile().as_text()
    gathered = re.findall(r"= (f32\[[\d,]*\]).* all-gather\(", text)
    assert sorted(gathered) == sorted([f"f32[2,{images},{dim}]", f"f32[2,{images},2]"])
    assert not re.search(r"(all-to-all|reduce-scatter|collective-permute)\(", text)

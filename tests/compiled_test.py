"""What is read from a compiled program, on programs whose content is known."""

import jax
import jax.numpy as jnp

from simclr_jax import compiled
from simclr_jax import mesh as meshes


def test_collectives_are_counted_with_their_bytes_and_through_loops(mesh8):
    def program(x):
        def body(total, row):
            return total + jax.lax.with_sharding_constraint(
                row, meshes.replicated(mesh8)
            ).sum() * jnp.ones(4), None

        total, _ = jax.lax.scan(body, jnp.zeros(4), jnp.moveaxis(x.reshape(8, 3, 4), 1, 0))
        return total

    x = jax.ShapeDtypeStruct((24, 4), jnp.float32, sharding=meshes.sharded(mesh8))
    jitted = jax.jit(program, out_shardings=meshes.replicated(mesh8))
    text = jitted.lower(x).compile().as_text()
    found = compiled.collectives(text)
    assert sum(kind["count"] for kind in found) == 3, text


def test_an_asynchronous_collective_counts_its_result_once():
    text = """
HloModule m
ENTRY %main (a: f32[4,2]) -> f32[32,2] {
  %s = (f32[4,2], f32[32,2]) all-gather-start(f32[4,2] %a), dimensions={0}
  %d = f32[32,2] all-gather-done(%s)
  %r = (bf16[8], f32[]) all-reduce(%x, %y), to_apply=%add
}
"""
    assert compiled.collectives(text) == [
        {"kind": "all-gather", "count": 1, "bytes": 256},
        {"kind": "all-reduce", "count": 1, "bytes": 20},
    ]


def test_the_compilers_refusal_says_what_the_program_needs():
    refusal = (
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.50G of 15.75G hbm."
    )
    assert compiled.used_memory(refusal) == 17.5 * 2**30
    assert compiled.used_memory("INTERNAL: something else") is None

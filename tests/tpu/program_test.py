"""What is read from the text of programs whose content is known."""

import jax
import jax.numpy as jnp

from simclr_jax import mesh as meshes
from simclr_jax.tpu import program


def test_collectives_are_counted_with_their_bytes_and_through_loops(mesh8):
    def summed(x):
        def body(total, row):
            return total + jax.lax.with_sharding_constraint(
                row, meshes.replicated(mesh8)
            ).sum() * jnp.ones(4), None

        total, _ = jax.lax.scan(body, jnp.zeros(4), jnp.moveaxis(x.reshape(8, 3, 4), 1, 0))
        return total

    x = jax.ShapeDtypeStruct((24, 4), jnp.float32, sharding=meshes.sharded(mesh8))
    jitted = jax.jit(summed, out_shardings=meshes.replicated(mesh8))
    text = jitted.lower(x).compile().as_text()
    found = program.collectives(text)
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
    assert program.collectives(text) == [
        {"kind": "all-gather", "count": 1, "bytes": 256},
        {"kind": "all-reduce", "count": 1, "bytes": 20},
    ]


def test_a_sum_of_which_each_chip_keeps_its_part_is_a_reduce_scatter():
    """As libtpu 0.0.42.1 writes it for v5e:2x4, shortened."""
    text = """
HloModule m
%all-reduce-scatter.2 (input_0: bf16[512,1024], input_1: bf16[8]) -> (bf16[64,1024], bf16[1]) {
  %all-reduce.47 = (bf16[512,1024], bf16[8]) all-reduce(%input_0, %input_1), channel_id=1
}
%body (a: bf16[512,1024]) -> bf16[64,1024] {
  %fusion = (bf16[64,1024], bf16[1]) fusion(%a, %b), kind=kCustom, calls=%all-reduce-scatter.2
}
%upto (a: s32[]) -> pred[] {
  %limit = s32[]{:T(128)} constant(3)
}
ENTRY %main (a: bf16[512,1024]) -> bf16[64,1024] {
  %loop = (s32[]) while(%a), condition=%upto, body=%body
  %all-gather.24 = f32[512,1024] all-gather(%c), channel_id=34, dimensions={0}
}
"""
    assert program.collectives(text) == [
        {"kind": "all-gather", "count": 1, "bytes": 4 * 512 * 1024},
        {"kind": "reduce-scatter", "count": 3, "bytes": 3 * 2 * (512 * 1024 + 8)},
    ]


def test_traffic_is_what_operations_read_from_memory_and_write_to_it():
    """In the text of libtpu 0.0.42.1 for v5e, shortened; S(1) is the core's own memory."""
    text = """
HloModule m
%fused (p0: f32[100,8], p1: f32[8]) -> f32[8] {
  %p0 = f32[100,8]{1,0} parameter(0)
  %p1 = f32[8]{0} parameter(1)
  %row = f32[1,8]{1,0} dynamic-slice(%p0, %i, %zero), dynamic_slice_sizes={1,8}
  ROOT %sum = f32[8]{0} add(%row, %p1)
}
%body (t: (f32[100,8], f32[8])) -> (f32[100,8], f32[8]) {
  %rows = f32[100,8]{1,0} get-tuple-element(%t), index=0
  %total = f32[8]{0} get-tuple-element(%t), index=1
  %added = f32[8]{0} fusion(%rows, %total), kind=kLoop, calls=%fused
  ROOT %next = (f32[100,8], f32[8]) tuple(%rows, %added)
}
ENTRY %main (x: f32[100,8]) -> f32[1000] {
  %x = f32[100,8]{1,0:T(8,128)} parameter(0)
  %loop = (f32[100,8]{1,0}, f32[8]{0}) while(%t), condition=%upto, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  %y = bf16[1000]{0:T(8,128)(2,1)S(1)} fusion(%x), kind=kLoop, calls=%other
  %s = (bf16[1000]{0:T(8,128)}, bf16[1000]{0:T(8,128)S(1)}, u32[]{:S(2)}) copy-start(%y)
  %kept = bf16[1000]{0:T(8,128)} copy-done(%s)
  ROOT %z = f32[1000]{0:T(8,128)} convert(%y)
}
%other (p: f32[100,8]) -> bf16[1000] {
  %p = f32[100,8]{1,0} parameter(0)
}
"""
    loop = 5 * (4 * 8 + 4 * 8 + 4 * 8)  # a row and the sum are read, the sum is written
    assert program.hbm_bytes(text) == loop + 4 * 100 * 8 + 2 * 1000 + 4 * 1000


def test_the_traffic_of_a_compiled_sum_is_its_operands_and_its_result():
    x = jax.ShapeDtypeStruct((1000, 100), jnp.float32)
    text = jax.jit(lambda x, y: x * 2 + y).lower(x, x).compile().as_text()
    assert program.hbm_bytes(text) == 3 * 4 * 1000 * 100, text

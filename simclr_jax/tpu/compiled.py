"""Compiles a train step for a TPU slice without having one, and measures the compiled program.

python -m simclr_jax.tpu.compiled does that in a separate process, for a compiler can crash: it
reads {"config", "topology"} as JSON from stdin and writes the result of `measure` to stdout.
"""

import json
import math
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from ml_collections import ConfigDict

from simclr_jax import mesh as meshes
from simclr_jax import state as states
from simclr_jax.config import inputs, parts, record
from simclr_jax.run import teacher
from simclr_jax.tpu import chips, flops

# The kinds of collective operations, as the compiled program names them.
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# The size of the dtypes in bytes, where it is not 4.
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8}


def measure(config: ConfigDict, topology: str) -> dict[str, Any]:
    """Compiles the train step of a config for a topology, and measures the program.

    Args:
      config: The config of the run; data.num_examples and data.num_classes must be known.
      topology: The chip and the shape of the slice, such as 'v5e:4x8'.

    Returns:
      chips and hosts; memory: the bytes on a chip of params, optimizer, activations, images (of two
      batches, since the next one is copied while a step runs) and total; flops, hbm_bytes and
      analytic_flops: those of a chip in a step; collectives: see `collectives`. Where the step does
      not fit: needs, the bytes of memory that a chip would need.
    """
    described = chips.parse(topology)
    description = topologies.get_topology_desc(
        platform="tpu",
        topology_name=topology,
        chip_config_name=described.chip.configuration,
        chips_per_host_bounds=described.host,
    )
    mesh = meshes.make(list(description.devices))
    built = parts.build(config, mesh, teacher.shapes(config, mesh))
    state = states.abstract(built.initial, mesh, built.placed)
    shapes = batch(config, mesh)
    lowered, next_batch = (
        built.jitted.lower(state, shapes, built.objective),
        nbytes(shapes) // mesh.size,
    )
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needs = used_memory(str(error))
        if needs is None:
            raise
        return {"needs": needs + next_batch}
    memory: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis()
    live = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    total = live + memory.temp_size_in_bytes + next_batch
    if total > described.chip.hbm_bytes:
        return {"needs": total}
    fixed = flops.of_loss(config) / mesh.size
    loops = config.train.microbatches
    return {
        "chips": mesh.size,
        "hosts": len({device.process_index for device in mesh.devices.flat}),
        "memory": {
            "params": nbytes((state.params, state.batch_stats, built.objective)),
            "optimizer": nbytes_on_chip(state.opt_state),
            "activations": memory.temp_size_in_bytes,
            "images": 2 * next_batch,
            "total": total,
        },
        # The compiler counts the body of a loop once, not as often as it runs.
        "flops": loops * (cost["flops"] - fixed) + fixed,
        "hbm_bytes": loops * cost["bytes accessed"] - (loops - 1) * update_traffic(state),
        "analytic_flops": flops.of_step(config) / mesh.size,
        "collectives": collectives(compiled.as_text() or ""),
    }


def batch(config: ConfigDict, mesh: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes, dtypes and shardings of a global batch."""
    n, size, views = config.train.batch_size, config.data.image_size, inputs.views(config).count
    on = partial(jax.ShapeDtypeStruct, sharding=meshes.sharded(mesh))
    return {
        "image": on((n, views, size, size, 3), jnp.dtype(config.data.transfer_dtype)),
        "label": on((n,), jnp.int32),
        **{name: on(a.shape, a.dtype) for name, a in inputs.device_numbers(config, n).items()},
    }


def nbytes(tree: Any) -> int:
    """The size in bytes of a tree of arrays.

    >>> nbytes({"w": jnp.zeros((2, 3)), "b": jnp.zeros(3, jnp.bfloat16)})
    30
    """
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def nbytes_on_chip(tree: Any) -> int:
    """The size in bytes of a device's part of a tree of arrays with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def update_traffic(state: states.TrainState) -> int:
    """The bytes that an update moves on a chip.

    These are parameters and the optimizer's state twice, and gradients once. Where the
    optimizer's state is split, a chip reads its part of parameters and gradients only.
    """
    whole, part = nbytes(state.opt_state), nbytes_on_chip(state.opt_state)
    read = 2 * part / whole if whole else 2
    return round((1 + read) * nbytes(state.params)) + 2 * part


def used_memory(message: str) -> int | None:
    """The bytes that a program would need, by the compiler's error; None for another error.

    >>> used_memory("RESOURCE_EXHAUSTED: Used 2.00G of 1.00G hbm")
    2147483648
    """
    patterns = (
        r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm",
        r"\(([\d.]+)([KMGT])\) exceeds available HBM",
    )
    found = re.search(patterns[0], message) or re.search(patterns[1], message)
    return found and int(float(found[1]) * 2 ** (10 * ("KMGT".index(found[2]) + 1)))


def collectives(text: str) -> list[dict[str, Any]]:
    """The collective operations of a compiled program, as often as its loops run them.

    >>> collectives("ENTRY %main () -> f32[8] {\\n  %r = f32[8]{0} all-reduce(%x)\\n}")
    [{'kind': 'all-reduce', 'count': 1, 'bytes': 32}]

    Args:
      text: The program, in XLA's text form.

    Returns:
      The "kind", the "count", and the "bytes" of all results, of each kind that occurs. Those of a
      reduce-scatter are of what goes in: a TPU's program has an all-reduce of it in a computation
      named all-reduce-scatter, and no device receives more than its part.
    """
    count: Counter[str] = Counter()
    moved: Counter[str] = Counter()
    for kind, size, times in _collectives(text):
        count[kind] += times
        moved[kind] += times * size
    return [{"kind": kind, "count": count[kind], "bytes": moved[kind]} for kind in sorted(count)]


def _collectives(text: str) -> Iterator[tuple[str, int, int]]:
    """Yields the kind, the bytes of the results, and the count of each collective operation."""
    bodies = _computations(text)
    times = {name: 1 for name in bodies}
    for lines in bodies.values():  # The train step has no loop inside a loop.
        for line in lines:
            if loop := re.search(r" while\(.*body=%?([\w.\-]+)", line):
                times[loop[1]] = _trips(line, bodies)
    for name, lines in list(bodies.items()):
        for called in re.findall(r"calls=%?([\w.\-]+)", "\n".join(lines)):
            times[called] = max(times.get(called, 1), times[name])
    seen: set[str] = set()  # An operation that is fused with others occurs once in each part.
    for name, lines in bodies.items():
        for line in lines:
            channel = re.search(r"channel_id=\d+", line)
            if channel and channel[0] in seen:
                continue
            found = re.search(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(", line)
            if found:
                if channel:
                    seen.add(channel[0])
                shapes = re.findall(r"(\w+)\[([\d,]*)\]", found[1])
                sizes = [_size(dtype, dims) for dtype, dims in shapes]
                # An asynchronous one has as many operands as results, and the results come last.
                half = len(sizes) // 2 if found[3] and found[2] != "all-reduce" else 0
                kind = "reduce-scatter" if name.startswith("all-reduce-scatter") else found[2]
                yield kind, sum(sizes[half:]), times[name]


def _trips(loop: str, bodies: dict[str, list[str]]) -> int:
    """How often a loop's body runs: as noted on its line, or by the number that is its limit.

    >>> limit = ["%c = s32[]{:T(128)} constant(4)", "ROOT %lt = pred[] compare(%i, %c)"]
    >>> _trips("%w = (s32[]) while(%t), condition=%upto, body=%b", {"upto": limit})
    4

    Args:
      loop: The line of the loop.
      bodies: The lines of each computation by its name.
    """
    if noted := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop):
        return int(noted[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop)
    lines = "\n".join(bodies.get(condition[1], [])) if condition else ""
    limits = re.findall(r"= s32\[\]\S* constant\((\d+)\)", lines)
    return int(limits[0]) if len(limits) == 1 else 1


def _computations(text: str) -> dict[str, list[str]]:
    """The lines of each computation of a program by its name."""
    bodies: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        opened = re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line)
        if opened:
            name = opened[1]
            bodies[name] = []
        elif name:
            bodies[name].append(line)
    return bodies


def _size(dtype: str, dims: str) -> int:
    """The size in bytes of an array; its dimensions are text such as '2,3'."""
    size = _BYTES.get(dtype, 4)
    for dim in filter(None, dims.split(",")):
        size *= int(dim)
    return size


def main() -> None:
    """Measures the step that stdin describes."""
    # Python would look at Ctrl-C only after the compilation, when simclr-plan is long gone.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    jax.config.update("jax_platforms", "cpu")
    request = json.load(sys.stdin)
    config = record.from_json(request)
    print(json.dumps(measure(config, request["topology"])))


if __name__ == "__main__":
    main()

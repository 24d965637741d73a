"""A train step compiled for a TPU slice that is not there, and what the compiler says of it.

python -m simclr_jax.tpu.compiled runs in a process of its own, for a compiler can crash: it reads
{"config", "topology"} as JSON on its input and writes what `measure` returns on its output.
"""

import json
import os
import re
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
from simclr_jax.config import parts, record
from simclr_jax.tpu import flops
from simclr_jax.tpu.chips import CHIPS

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8}


def measure(config: ConfigDict, topology: str) -> dict[str, Any]:
    """Compiles the config's step for a topology.

    Returns:
      chips, hosts; memory: bytes a chip of params, optimizer, activations and total; flops and
      hbm_bytes a chip; analytic_flops a chip; collectives: [{kind, count, bytes}] a step; or, where
      the compiler says so, {"needs": bytes a chip, more than there are}.
    """
    description = topologies.get_topology_desc(
        platform="tpu",
        topology_name=topology,
        chip_config_name=CHIPS[topology.partition(":")[0]].configuration,
    )
    mesh = meshes.make(list(description.devices))
    built = parts.build(config, mesh)
    state = states.abstract(built.initial, mesh)
    lowered = built.step.lower(state, batch(config, mesh))
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needs = used_memory(str(error))
        if needs is None:
            raise
        return {"needs": needs}
    memory: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    fixed = flops.of_loss(config) / mesh.size
    loops = config.train.microbatches
    return {
        "chips": mesh.size,
        "hosts": len({device.process_index for device in mesh.devices.flat}),
        "memory": {
            "params": nbytes((state.params, state.batch_stats)),
            "optimizer": nbytes(state.opt_state),
            "activations": memory.temp_size_in_bytes,
            "total": held + memory.temp_size_in_bytes,
        },
        # The compiler counts a loop's body once.
        "flops": loops * (cost["flops"] - fixed) + fixed,
        "hbm_bytes": loops * cost["bytes accessed"] - (loops - 1) * update_traffic(state),
        "analytic_flops": flops.of_step(config) / mesh.size,
        "collectives": collectives(compiled.as_text() or ""),
    }


def batch(config: ConfigDict, mesh: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the config's global batch, split over the mesh."""
    n, size = config.train.batch_size, config.data.image_size
    on = partial(jax.ShapeDtypeStruct, sharding=meshes.sharded(mesh))
    return {
        "image": on((n, 2, size, size, 3), jnp.dtype(config.data.transfer_dtype)),
        "label": on((n,), jnp.int32),
        "blur_sigma": on((n, 2), jnp.float32),
    }


def nbytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def update_traffic(state: states.TrainState) -> int:
    """Bytes that an update moves: parameters and optimizer read and written, gradients read."""
    return 3 * nbytes(state.params) + 2 * nbytes(state.opt_state)


def used_memory(message: str) -> int | None:
    """Bytes that a program would need, from the compiler's refusal; None if it is about another."""
    said = (
        r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm",
        r"\(([\d.]+)([KMGT])\) exceeds available HBM",
    )
    found = re.search(said[0], message) or re.search(said[1], message)
    return found and int(float(found[1]) * 2 ** (10 * ("KMGT".index(found[2]) + 1)))


def collectives(text: str) -> list[dict[str, Any]]:
    """[{kind, count, bytes}] of a compiled program, loops run through: bytes of their results."""
    count: Counter[str] = Counter()
    moved: Counter[str] = Counter()
    for kind, size, times in _collectives(text):
        count[kind] += times
        moved[kind] += times * size
    return [{"kind": kind, "count": count[kind], "bytes": moved[kind]} for kind in sorted(count)]


def _collectives(text: str) -> Iterator[tuple[str, int, int]]:
    bodies = _computations(text)
    times = {name: 1 for name in bodies}
    for lines in bodies.values():  # a loop inside a loop does not occur here
        for line in lines:
            loop = re.search(r" while\(.*body=%?([\w.\-]+)", line)
            trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
            if loop and trips:
                times[loop[1]] = int(trips[1])
    seen: set[str] = set()  # one that is fused with computation is written once a piece
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
                # Of an asynchronous one's (operands, results) the results are as many, and last.
                half = len(sizes) // 2 if found[3] and found[2] != "all-reduce" else 0
                yield found[2], sum(sizes[half:]), times[name]


def _computations(text: str) -> dict[str, list[str]]:
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
    size = _BYTES.get(dtype, 4)
    for dim in filter(None, dims.split(",")):
        size *= int(dim)
    return size


def main() -> None:
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    jax.config.update("jax_platforms", "cpu")
    asked = json.load(sys.stdin)
    config = record.from_json(asked)
    print(json.dumps(measure(config, asked["topology"])))


if __name__ == "__main__":
    main()

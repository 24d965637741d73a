"""A benchmark of the contrastive loss and its gradient, in blocks of rows and all rows at once.

    python benchmarks/loss_blocks.py [--images=16384] [--block_rows=1024]
                                     [--block_columns=2048] [--rounds=3]
    python benchmarks/loss_blocks.py --compile [--images=524288] [--devices=8]

Each measurement is a new process on one CPU device, by turns:

- dense: all rows of logits at once; left out where these alone take more than 4 GiB;
- blocks: a block of rows of logits after another, in tiles of columns, computed again for the
  gradient;
- products: the two matrix products that no way can do without, also in blocks: of the embeddings
  with each other, and of the result with the embeddings.

The output is the ratios of the median times, and of the median peak memory without that of the
embeddings. With --compile nothing is run: the output is the memory of a device beside its
arguments, by the compiler, where the rows are split over devices.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

REPEATS = 3  # The number of timed repetitions in a process, after a first one that is not timed.
DIM = 128  # The width of the embeddings.
TEMPERATURE = 0.1  # The temperature of the loss.
KINDS = ("dense", "blocks", "products")
LARGEST = 4 * 2**30  # The largest size in bytes of the logits of "dense".


def measure(kind: str, images: int, block_rows: int, block_columns: int) -> dict[str, float]:
    """Measures the loss and its gradient, or the two products, in this process.

    Args:
      kind: One of `KINDS`.
      images: The number of images of the batch.
      block_rows: The largest number of rows of logits in memory, where they are in blocks.
      block_columns: The largest number of their columns in memory, in a tile.

    Returns:
      The median "seconds", the additional peak memory in "bytes", the "loss", and the L2 norm of
      its "gradient".
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from simclr_jax import losses
    from simclr_jax import mesh as meshes
    from simclr_jax.losses.blocks import by_blocks

    rng = np.random.default_rng(0)
    z = jnp.asarray(rng.standard_normal((2, images, DIM)), np.float32)

    def loss(z: jax.Array) -> jax.Array:
        rows = None if kind == "dense" else block_rows
        return losses.nt_xent(
            z[0], z[1], temperature=TEMPERATURE, block_rows=rows, block_columns=block_columns
        )[0]

    def products(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        def rows(block: jax.Array, images_of_block: jax.Array) -> tuple[jax.Array]:
            return (jnp.einsum("vbwn,wnd->vbd", jnp.einsum("vbd,wnd->vbwn", block, z), z),)

        (of_rows,) = by_blocks(rows, losses.count_blocks(images, block_rows), z)
        return of_rows.sum(), of_rows

    options = meshes.compiler_options(meshes.make(jax.devices()[:1]))
    computed = products if kind == "products" else jax.value_and_grad(loss)
    step = jax.jit(computed, compiler_options=options).lower(z).compile()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(REPEATS + 1):
        begin = time.perf_counter()
        value, gradient = jax.block_until_ready(step(z))
        seconds.append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": statistics.median(seconds[1:]),
        "bytes": 1024.0 * (peak - before),
        "loss": float(value),
        "gradient": float(jnp.linalg.norm(gradient)),
    }


def memory(images: int, devices: int) -> int:
    """The bytes that the loss and its gradient need on a device beside embeddings and gradient.

    The number of rows of a block is the one that a run chooses by itself.

    Args:
      images: The number of images of the batch, a multiple of the number of devices.
      devices: The number of devices that the rows are split over.
    """
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    from simclr_jax import mesh as meshes
    from simclr_jax.config import default, parts

    mesh = meshes.make(jax.devices()[:devices])
    chosen = parts.loss(default.get_config(), images, mesh)

    def loss(z: jax.Array) -> jax.Array:
        return chosen(z[0], z[1])[0]

    split = NamedSharding(mesh, PartitionSpec(None, meshes.AXIS))
    step = jax.jit(jax.value_and_grad(loss), in_shardings=split, out_shardings=(None, split))
    z = jax.ShapeDtypeStruct((2, images, DIM), jnp.float32)
    return step.lower(z).compile().memory_analysis().temp_size_in_bytes


def main() -> None:
    """Runs the processes and prints the ratios, or with --measure runs one measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=16384)
    parser.add_argument("--block_rows", type=int, default=1024)
    parser.add_argument("--block_columns", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3, help="the processes of each kind")
    parser.add_argument("--measure", choices=KINDS)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--devices", type=int, default=1)
    flags = parser.parse_args()
    if flags.measure:
        rows, columns = flags.block_rows, flags.block_columns
        print(json.dumps(measure(flags.measure, flags.images, rows, columns)))
    elif flags.compile:
        size = memory(flags.images, flags.devices) / 2**30
        print(f"2N = {2 * flags.images}, D = {DIM}, {flags.devices} devices: {size:.3f} GiB each")
    else:
        compare(flags)


def compare(flags: argparse.Namespace) -> None:
    """Measures each kind by turns, and prints the ratios to the blocks."""
    dense = 4 * (2 * flags.images) ** 2 <= LARGEST
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS[not dense :]}
    for _ in range(flags.rounds):
        for kind, results in found.items():
            child = [sys.executable, __file__, *sys.argv[1:], f"--measure={kind}"]
            results.append(json.loads(subprocess.check_output(child).splitlines()[-1]))
            print(kind, {key: f"{value:.6g}" for key, value in results[-1].items()}, flush=True)
    median = {
        kind: {key: statistics.median(each[key] for each in results) for key in results[0]}
        for kind, results in found.items()
    }
    blocks, floor = median["blocks"], median["products"]
    print(
        f"2N = {2 * flags.images}, D = {DIM}, {flags.block_rows} rows a block: "
        f"{blocks['seconds'] / floor['seconds']:.2f} of the time of two products"
    )
    if dense:
        ratio = {key: blocks[key] / median["dense"][key] for key in blocks}
        apart = {key: f"{abs(ratio[key] - 1):.1e}" for key in ("loss", "gradient")}
        print(
            f"over all rows at once: memory {ratio['bytes']:.3f}, time {ratio['seconds']:.2f}; "
            f"loss {apart['loss']} and gradient's norm {apart['gradient']} apart"
        )


if __name__ == "__main__":
    main()

"""A benchmark of the contrastive loss and its gradient, in blocks of rows and all rows at once.

    python benchmarks/loss_blocks.py [--images=16384] [--block_rows=1024] [--rounds=3]

Each measurement is a new process on one CPU device, alternately with all rows and in blocks. The
output is two ratios of the blocks to all rows at once: that of the median time, and that of the
median of the peak memory, without that of the embeddings.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

REPEATS = 3  # The number of timed repetitions in a process, after a first one that is not timed.
DIM = 128  # The width of the embeddings.
TEMPERATURE = 0.1  # The temperature of the loss.


def measure(images: int, block_rows: int | None) -> dict[str, float]:
    """Measures the loss and its gradient in this process.

    Args:
      images: The number of images of the batch.
      block_rows: The largest number of rows of logits in memory, or None for all rows at once.

    Returns:
      The median "seconds", the additional peak memory in "bytes", the "loss", and the L2 norm of
      its "gradient".
    """
    import jax
    import numpy as np

    from simclr_jax import losses
    from simclr_jax import mesh as meshes

    rng = np.random.default_rng(0)
    z = jax.numpy.asarray(rng.standard_normal((2, images, DIM)), np.float32)

    def loss(z: jax.Array) -> jax.Array:
        return losses.nt_xent(z[0], z[1], temperature=TEMPERATURE, block_rows=block_rows)[0]

    options = meshes.compiler_options(meshes.make(jax.devices()[:1]))
    step = jax.jit(jax.value_and_grad(loss), compiler_options=options).lower(z).compile()
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
        "gradient": float(jax.numpy.linalg.norm(gradient)),
    }


def main() -> None:
    """Runs the processes and prints the ratios, or with --measure runs one measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=16384)
    parser.add_argument("--block_rows", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3, help="the processes of each kind")
    parser.add_argument("--measure", choices=["dense", "blocks"])
    flags = parser.parse_args()
    if flags.measure:
        rows = flags.block_rows if flags.measure == "blocks" else None
        print(json.dumps(measure(flags.images, rows)))
        return
    found: dict[str, list[dict[str, float]]] = {"dense": [], "blocks": []}
    for _ in range(flags.rounds):
        for kind, results in found.items():
            child = [sys.executable, __file__, *sys.argv[1:], f"--measure={kind}"]
            results.append(json.loads(subprocess.check_output(child).splitlines()[-1]))
            print(kind, {key: f"{value:.6g}" for key, value in results[-1].items()}, flush=True)
    ratio = {
        key: statistics.median(r[key] for r in found["blocks"])
        / statistics.median(r[key] for r in found["dense"])
        for key in found["dense"][0]
    }
    print(
        f"2N = {2 * flags.images}, D = {DIM}, {flags.block_rows} rows a block, over all rows at "
        f"once: memory {ratio['bytes']:.3f}, time {ratio['seconds']:.2f}; loss "
        f"{abs(ratio['loss'] - 1):.1e} and gradient's norm {abs(ratio['gradient'] - 1):.1e} apart"
    )


if __name__ == "__main__":
    main()

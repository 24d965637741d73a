"""A benchmark of the features that evaluation computes against the network's forward pass alone.

    python benchmarks/features.py [--network=18|50] [--size=32|224] [--images=2048] [--batch=256]
                                  [--rounds=5]

Both take the same images with the same weights, by turns, compiled before the clock starts:

- evaluation: `Extractor.evaluation`, which takes every image from its source, makes its evaluation
  view, sends it to the devices, and fetches the features and checks them;
- forward: the compiled network, again and again on one batch that stays on the devices.

The images are JPEGs of blurred noise. Those of 32 px are kept decoded in memory after the first
pass; those of 224 px are decoded in each. The output is the median images a second with its spread,
and the ratio of the medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from simclr_jax import mesh as meshes
from simclr_jax.data.readable import Readable
from simclr_jax.data.synthetic import Photos
from simclr_jax.evals import features
from simclr_jax.models.simclr import SimCLR


def ways(flags: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """What each way does with all images."""
    mesh = meshes.make(jax.devices()[:1])
    model = SimCLR(depth=flags.network, stem="small" if flags.size <= 64 else "imagenet")
    image = jnp.zeros((2, flags.size, flags.size, 3), jnp.float32)
    initial = jax.jit(partial(model.init, train=False))(jax.random.key(0), image)
    variables = jax.device_put(initial, meshes.replicated(mesh))
    extractor = features.Extractor(
        model, variables, layer="h", image_size=flags.size, batch_size=flags.batch,
        transfer_dtype="uint8", mesh=mesh,
    )  # fmt: skip
    source = Readable(
        Photos(flags.images, width=flags.size, height=flags.size), on_bad_image="error"
    )
    network = jax.jit(
        partial(features.extract, model=model, layer="h"),
        compiler_options=meshes.compiler_options(mesh),
    )
    one = meshes.put({"image": np.zeros((flags.batch, flags.size, flags.size, 3), np.uint8)}, mesh)[
        "image"
    ]

    def evaluation() -> None:
        assert sum(len(found.x) for found in extractor.evaluation(source)) == flags.images

    def forward() -> None:
        for _ in range(flags.images // flags.batch):
            found = network(variables, one)
        jax.block_until_ready(found)

    return {"evaluation": evaluation, "forward": forward}


def main() -> None:
    """Times both by turns and prints their medians and the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", type=int, choices=(18, 50), default=18)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--images", type=int, default=2048, help="a multiple of --batch")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    compared = ways(flags)
    found: dict[str, list[float]] = {name: [] for name in compared}
    for number in range(flags.rounds + 1):  # The first round compiles, and checks the images.
        for name, run in compared.items():
            begin = time.perf_counter()
            run()
            if number:
                found[name].append(flags.images / (time.perf_counter() - begin))
    for name, speeds in found.items():
        middle, low, high = statistics.median(speeds), min(speeds), max(speeds)
        print(f"{name:<11}{middle:8.0f} images/s ({low:.0f}-{high:.0f})")
    evaluation, forward = (statistics.median(found[name]) for name in ("evaluation", "forward"))
    print(f"of the forward pass's speed: {evaluation / forward:.2f}")


if __name__ == "__main__":
    main()

"""What the hosts of a slice must read of their storage, and what storage is taken to deliver."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from simclr_jax.data.order import Order
from simclr_jax.store import ranges

STEPS = 4  # The number of steps whose reads are counted.
BLOCKS = (16, 64, 256)  # The values of data.shuffle_block that are tried.
PHOTOGRAPH = 110_000  # The mean number of bytes of an image of ImageNet.


class Assumed(NamedTuple):
    """What a kind of storage is taken to deliver to a host.

    Attributes:
      storage: How it is read.
      reads: The number of reads in a second.
      bandwidth: The number of bytes in a second.
    """

    storage: ranges.Storage
    reads: float
    bandwidth: float


# A network disk of a cloud with SSDs, and a bucket whose requests take 30 ms and 1 ms of Python's.
ASSUMED = {
    "disk": Assumed(ranges.DISK, 10_000, 1e9),
    "bucket": Assumed(ranges.BUCKET, 1_000, 0.5e9),
}


class Needed(NamedTuple):
    """What a host reads in a second to keep its chips busy.

    Attributes:
      reads: The number of reads.
      bandwidth: The number of bytes, with those between records that are read at once.
    """

    reads: float
    bandwidth: float

    def slowdown(self, assumed: Assumed) -> float:
        """How many times too slow storage is; at most 1 where it is fast enough."""
        return max(self.reads / assumed.reads, self.bandwidth / assumed.bandwidth)


def image_bytes(size: int, channels: int = 3) -> int:
    """The number of bytes that an encoded image is taken to have, from the side of its views."""
    return PHOTOGRAPH * channels // 3 if size > 64 else channels * size * size


def needed(
    order: Order, *, rows: int, bytes_each: int, steps_per_second: float, storage: ranges.Storage
) -> Needed:
    """Counts what a host reads, from the order of the first steps.

    Args:
      order: The order of the examples.
      rows: The number of examples that the host makes of a batch.
      bytes_each: The number of bytes of each record, which lie beside each other in one file.
      steps_per_second: The number of steps that the chips take in a second.
      storage: How the storage is read.
    """
    reads = taken = 0
    for step in range(STEPS):
        starts = bytes_each * order.batch(step, np.arange(rows))[0]
        for group in ranges.together(starts, starts + bytes_each, storage):
            reads += 1
            taken += int(starts[group[-1]] - starts[group[0]]) + bytes_each
    return Needed(reads * steps_per_second / STEPS, taken * steps_per_second / STEPS)


def in_words(config: ConfigDict, planned: dict[str, Any]) -> str:
    """Lines that say whether the storage of the images can feed the chips, one a kind of storage.

    Args:
      config: The config of the run, with data.num_examples.
      planned: The plan, with "step_seconds" and "hosts".
    """
    each = image_bytes(config.data.image_size, config.data.channels)

    def at(block: int, assumed: Assumed) -> Needed:
        order = Order(
            config.data.num_examples, config.train.batch_size, config.seed, block,
            config.data.shuffle_window,
        )  # fmt: skip
        rows, rate = config.train.batch_size // planned["hosts"], 1 / planned["step_seconds"]
        return needed(
            order, rows=rows, bytes_each=each, steps_per_second=rate, storage=assumed.storage
        )

    # Each image of a folder is a file of its own, which is read alone.
    alone = config.data.name == "folder"
    lines: list[str] = []
    for kind, assumed in ASSUMED.items():
        now = at(1 if alone else config.data.shuffle_block, assumed)
        text = (
            f"{kind}: {now.reads:,.0f} reads/s and {now.bandwidth / 1e9:.2f} GB/s a host needed, "
            f"{assumed.reads:,} and {assumed.bandwidth / 1e9:.1f} assumed: {_verdict(now, assumed)}"
        )
        if now.slowdown(assumed) > 1 and not alone:
            found = {block: at(block, assumed) for block in BLOCKS}
            best = min(found, key=lambda block: max(1, found[block].slowdown(assumed)))
            text += (
                f"; data.shuffle_block={best} needs {found[best].reads:,.0f} and "
                f"{found[best].bandwidth / 1e9:.2f}: {_verdict(found[best], assumed)}"
            )
        lines.append(text)
    lines[-1] += f" (images of {each / 1000:,.0f} kB assumed)"
    return "\n".join(f"{'' if row else 'storage':<14}{line}" for row, line in enumerate(lines))


def _verdict(of: Needed, assumed: Assumed) -> str:
    slowdown = of.slowdown(assumed)
    return "enough" if slowdown <= 1 else f"{slowdown:.1f}x too slow"

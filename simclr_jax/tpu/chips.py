"""The TPU chips by the name that a topology such as 'v5e:4x8' begins with.

Sources: the pages of Cloud TPU on each version, table "System architecture", read November 2026
(https://cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e, /tpu7x). The pages give the network of a
chip in both directions together; half of that is here. The memory is what the compiler of libtpu
0.0.42.1 leaves to a program, a little less than the chip has.

A chip is one `jax.Device`, but a TPU7x (Ironwood) chip is two. Each of the two has half of the
chip's arithmetic, memory and network, and is counted as a chip of its own.
"""

import math
import re
from typing import NamedTuple

from simclr_jax.errors import ArgumentError


class Chip(NamedTuple):
    """The performance of a chip.

    Attributes:
      flops: The peak of bfloat16 operations per second.
      hbm_bytes: The size of the memory in bytes that a program can use.
      hbm_bandwidth: The bandwidth of the memory in bytes per second.
      ici_bandwidth: The bandwidth to the neighbours in bytes per second, over all links together,
        in one direction.
      host: The largest number of chips of one host in each dimension of a slice of several hosts.
      one_host: The shapes of slices that have one host though they are larger than that.
      configuration: The name in libtpu of the configuration in which a chip is one device.
      devices: The number of devices of a chip of the topology.
    """

    flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    ici_bandwidth: float
    host: tuple[int, int, int] = (2, 2, 1)
    one_host: tuple[tuple[int, ...], ...] = ()
    configuration: str = "default"
    devices: int = 1


CHIPS = {
    "v4": Chip(275e12, int(30.75 * 2**30), 1228e9, 300e9, configuration="megacore"),
    "v5e": Chip(197e12, int(15.75 * 2**30), 819e9, 200e9, one_host=((2, 4),)),
    "v5p": Chip(459e12, int(95.74 * 2**30), 2765e9, 600e9),
    "v6e": Chip(918e12, int(31.25 * 2**30), 1638e9, 400e9, one_host=((2, 4),)),
    "tpu7x": Chip(2307e12 / 2, int(94.75 * 2**30), 7380e9 / 2, 600e9 / 2, devices=2),
}


class Slice(NamedTuple):
    """A TPU slice.

    Attributes:
      chip: The performance of a chip.
      shape: The number of chips in each dimension.
      host: The number of chips of one host in each of three dimensions.
    """

    chip: Chip
    shape: tuple[int, ...]
    host: tuple[int, int, int]

    @property
    def size(self) -> int:
        """The number of devices of all hosts."""
        return math.prod(self.shape) * self.chip.devices


# The accelerator types of launch/tpu.sh, and whether they count cores, of which a chip has two.
_ACCELERATORS = {"v4": ("v4", 2), "v5e": ("v5litepod", 1), "v5p": ("v5p", 2), "v6e": ("v6e", 1)}


def accelerator(topology: str) -> str | None:
    """The accelerator type of a slice, as gcloud and launch/tpu.sh name it; None: they have none.

    >>> accelerator("v5e:4x8"), accelerator("v5p:2x4x4"), accelerator("tpu7x:2x2x1")
    ('v5litepod-32', 'v5p-64', None)

    Args:
      topology: The chip and the shape of the slice.

    Raises:
      ArgumentError: There is no such slice.
    """
    name, cores = _ACCELERATORS.get(topology.partition(":")[0], ("", 0))
    return f"{name}-{parse(topology).size * cores}" if name else None


def parse(topology: str) -> Slice:
    """The slice that a topology names.

    >>> parse("v5e:4x8").host, parse("v5e:2x4").host, parse("v5e:1x1").host
    ((2, 2, 1), (2, 4, 1), (1, 1, 1))
    >>> parse("v5p:2x2x2").size, parse("tpu7x:2x2x2").size
    (8, 16)

    Args:
      topology: The chip and the shape of the slice, such as 'v5e:4x8' or 'v5p:2x2x4'.

    Raises:
      ArgumentError: There is no such slice.
    """
    name, _, text = topology.partition(":")
    if name in CHIPS and re.fullmatch(r"[1-9]\d*x[1-9]\d*(x[1-9]\d*)?", text):
        chip, shape = CHIPS[name], tuple(map(int, text.split("x")))
        x, y, z = *shape, *(1,) * (3 - len(shape))
        if shape in chip.one_host:
            return Slice(chip, shape, (x, y, z))
        host = min(x, chip.host[0]), min(y, chip.host[1]), min(z, chip.host[2])
        if x % host[0] == y % host[1] == z % host[2] == 0:
            return Slice(chip, shape, host)
    raise ArgumentError(
        "topology",
        topology,
        f"must be CHIP:SHAPE such as v5e:4x8, with one of the chips {', '.join(CHIPS)} and "
        "dimensions of 1 or even numbers of chips",
    )

"""The TPU chips by the name that a topology such as 'v5e:4x8' begins with.

Sources: the pages of Cloud TPU on each version, table "System architecture", read November 2026
(https://cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e). A chip of these is one `jax.Device`.
"""

from typing import NamedTuple


class Chip(NamedTuple):
    """The performance of a chip.

    Attributes:
      flops: The peak of bfloat16 operations per second.
      hbm_bytes: The size of the memory in bytes.
      hbm_bandwidth: The bandwidth of the memory in bytes per second.
      ici_bandwidth: The bandwidth to the neighbours in bytes per second, over all links together,
        in one direction.
      configuration: The name in libtpu of the configuration in which a chip is one device.
    """

    flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    ici_bandwidth: float
    configuration: str = "default"


CHIPS = {
    "v4": Chip(275e12, 32 * 2**30, 1228e9, 300e9, "megacore"),
    "v5e": Chip(197e12, 16 * 2**30, 819e9, 200e9),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 600e9),
    "v6e": Chip(918e12, 32 * 2**30, 1640e9, 448e9),
}

"""What the TPU chips can do, by the name that a topology such as 'v5e:4x8' begins with.

Sources: Cloud TPU's pages on each version, "System architecture" table, read November 2026
(https://cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e). A `jax.Device` of these is a chip.
"""

from typing import NamedTuple


class Chip(NamedTuple):
    """Attributes:
    flops: peak, bfloat16 operations a second.
    hbm_bytes: of memory.
    hbm_bandwidth: bytes a second.
    ici_bandwidth: bytes a second to its neighbours, all links together, one direction.
    configuration: libtpu's name of that which makes a chip one device.
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

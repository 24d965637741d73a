"""What a run has at hand when it chooses its sizes: images, memory, and the time of an image.

All processes get what process 0 has found.
"""

import os
from pathlib import Path

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from simclr_jax import mesh as meshes
from simclr_jax import processes
from simclr_jax.config import parts
from simclr_jax.data.readable import Readable
from simclr_jax.data.source import evenly_spaced
from simclr_jax.run import advice, rehearsal
from simclr_jax.run.sizes import SMALL, Cost

SAMPLE = 64  # The largest number of images whose size is looked at.
SECONDS = 1.5  # The length of each timing of the input.


def side_of(source: Readable) -> int:
    """The shorter side that three quarters of the images reach, in pixels, of at most `SAMPLE`.

    Args:
      source: The images; where the sizes of all are unknown, they count as small.
    """
    sample, _ = source.source.load(evenly_spaced(source.source, SAMPLE))
    sides = advice.shorter_sides(sample, source.channels)
    side = int(np.percentile(sides, 25, method="lower")) if sides else SMALL
    return processes.from_primary([side])[0]


def memory() -> float:
    """The bytes of memory of all devices together; of CPUs those of this host."""
    if jax.default_backend() == "cpu":
        found = float(host_memory())
    else:
        told = jax.local_devices()[0].memory_stats() or {}
        found = float(told.get("bytes_limit", 16 * 2**30)) * jax.device_count()
    return 2.0**20 * processes.from_primary([int(found / 2**20)])[0]


def host_memory() -> int:
    """The bytes of memory of this host, or of the container that the process runs in."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")  # That of a container.
    given = limit.read_text().strip() if limit.is_file() else ""
    return min(whole, int(given)) if given.isdigit() else whole


def cost(config: FrozenConfigDict, source: Readable) -> tuple[Cost, float]:
    """Times a few steps of a config.

    Args:
      config: The config of a run without a teacher; its counts must be known.
      source: Its training images.

    Returns:
      What an image takes, and the seconds that the step took to compile.
    """
    built = parts.build(config, meshes.make())
    found = rehearsal.rehearse(config, built, source, built.first(), seconds=SECONDS)
    size = found.batch_size
    of_image = Cost(
        step=_agreed(found.step_seconds / size),
        input=_agreed(found.input_seconds / size),
        together=_agreed(found.together / size),
        first=_agreed(found.first_epoch / size),
        shared=found.shared,
    )
    return of_image, _agreed(found.compile_seconds)


def _agreed(seconds: float) -> float:
    """The seconds that process 0 has, to within a billionth of them."""
    fraction, exponent = np.frexp(seconds)
    sent = processes.from_primary([round(float(fraction) * 2**30), int(exponent)])
    return float(np.ldexp(sent[0] / 2**30, sent[1]))

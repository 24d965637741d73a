"""simclr-train on data that stop coming after some batches, with a watchdog that waits a second.

python stalling_worker.py FLAGS…
"""

import itertools
import time

from simclr_jax import train
from simclr_jax.data.digits import Digits
from simclr_jax.models import resnet
from simclr_jax.run import watchdog

BATCHES = 12  # The number of batches that come.


def stalls_here() -> None:
    """Never returns."""
    while True:
        time.sleep(1.0)


if __name__ == "__main__":
    resnet.BLOCKS[10] = (resnet.BasicBlock, (1, 1, 1, 1))
    watchdog.MIN_SECONDS = 1.0
    count, load = itertools.count(), Digits.load

    def load_or_stall(self, indices):
        if next(count) >= BATCHES:
            stalls_here()
        return load(self, indices)

    Digits.load = load_or_stall
    train.main()

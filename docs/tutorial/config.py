"""The tutorial's pictures: tiny, grey, and with a label on ten of each kind.

Command:  simclr-train --config=docs/tutorial/config.py --workdir=runs/tutorial
Hardware: 2 CPU cores.
Result:   docs/tutorial.md goes through it.
"""

from ml_collections import ConfigDict

from simclr_jax.config import shipped


def get_config() -> ConfigDict:
    """The config of the tutorial's pictures."""
    c = shipped.load("folder", "size=small")
    c.data.update(dir="pictures", image_size=8, labels_per_class=10)
    c.augment.update(ops=("crop", "jitter"), crop_area=(0.36, 1.0))
    c.train.epochs = 30.0
    return c

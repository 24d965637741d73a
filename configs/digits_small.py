"""Digits with a narrow ResNet-18 for 40 epochs: a minute on one core.

Command:  simclr-train --config=configs/digits_small.py --workdir=RUN
Hardware: one or two CPU cores.
Result:   docs/paper.md has it, as the setting of the small form of some studies.
"""

from ml_collections import ConfigDict

from simclr_jax.config import shipped


def get_config() -> ConfigDict:
    """The config of the digits for studies on two cores."""
    c = shipped.load("digits")
    c.model.update(width=0.125, head_layers=2)
    c.train.epochs = c.eval.every_epochs = c.checkpoint.every_epochs = 40.0
    c.log.tensorboard = False
    return c

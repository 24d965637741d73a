"""A supervised network on the data, the network and the augmentations of another record.

Command:  simclr-train --config=configs/supervised.py:data=cifar10 --workdir=RUN
Hardware: that of the record; an image is augmented once, not twice.
Result:   docs/results.md has a small network on a fifth of CIFAR-10; not measured in full yet
          (published for ResNet-50: ImageNet 0.757, CIFAR-10 0.951).

The rate, the decay and the warm-up are those that ResNets are usually trained with; the length is
the record's own.
"""

from ml_collections import ConfigDict

from simclr_jax.config import default, shipped


def get_config(arguments: str | None = None) -> ConfigDict:
    """The config of a supervised baseline.

    Args:
      arguments: Some of data, the record whose data, network and augmentations are used, and
        batch, the number of images, such as 'data=cifar10,batch=128'.

    Raises:
      ValueError: An argument is unknown, or has another type.

    Reference: Chen et al. 2020, Table 1 (arXiv 2002.05709); Goyal et al. 2017 (arXiv 1706.02677).
    """
    given = default.arguments(arguments, data="imagenet", batch=256)
    c = shipped.load(given["data"])
    c.objective.name = "supervised"
    c.optim.update(
        name="momentum", lr=0.1, lr_scaling="linear", weight_decay=1e-4, warmup_epochs=5.0
    )
    c.train.batch_size = given["batch"]
    return c

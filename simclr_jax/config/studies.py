"""What the studies of the paper have in common, in their small form and in the paper's setting."""

from typing import Any

from ml_collections import ConfigDict

from simclr_jax.config import default_sweep, shipped

# The record of the runs of a study by its size, if the study does not name another.
RECORDS = {"small": "cifar10_small", "paper": "imagenet"}
# What the small form is where the contrastive task has to be learnt well.
DIGITS = "ResNet-18 x 1/8 (64 dimensions), 1,437 images of 8x8 digits, "


def begin(size: str, *, small: str = RECORDS["small"]) -> ConfigDict:
    """A study of the paper without points and measures, with its runs' record and its seeds.

    Args:
      size: The size of the study, 'small' or 'paper'.
      small: The record of the runs of the small form.

    Raises:
      ValueError: There is no such size.
    """
    c = default_sweep.get_config(size)
    c.run = shipped.load(small if size == "small" else RECORDS[size])
    c.seeds = (0, 1, 2) if size == "small" else (0,)
    return c


def add_linear(
    c: ConfigDict, name: str, *, label: str, metric: str = "top1", layer: str = "h"
) -> None:
    """Adds the linear evaluation of a layer to a study of the paper.

    In the small form it is a logistic regression at its optimum, for SGD at one rate ranks encoders
    by the scale of their features as well.

    Args:
      c: The study, which is changed.
      name: The name of the measure.
      label: What the table calls it.
      metric: The metric, 'top1' or 'top5'.
      layer: The layer, as in `features.layer`.
    """
    protocol = "logistic" if c.size == "small" else "linear"
    keys = {"features.layer": layer}
    default_sweep.add_measure(c, name, metric, protocol=protocol, label=label, keys=keys)


def add_knn(c: ConfigDict) -> None:
    """Adds the top-1 of nearest neighbours to the small form of a study of the paper.

    A linear classifier of all labels makes up for much that a short pretraining lacks.

    Args:
      c: The study, which is changed.
    """
    if c.size == "small":
        default_sweep.add_measure(c, "knn", "top1", protocol="knn", label="kNN top-1")


def supervised(size: str, *, batch: int, epochs: float, warmup_epochs: float) -> dict[str, Any]:
    """The keys of a supervised run beside those of a study's record, by dotted key.

    Args:
      size: The size of the study.
      batch: The number of images of a batch.
      epochs: The length in epochs.
      warmup_epochs: The length of the warm-up in epochs.
    """
    config = shipped.load("supervised", f"data={RECORDS[size]},batch={batch}")
    # A study may have another length than its record.
    length = {"train.epochs": epochs, "optim.warmup_epochs": warmup_epochs}
    return default_sweep.differences(config, shipped.load(RECORDS[size])) | length


def baseline(size: str) -> dict[str, Any]:
    """The keys of the supervised network that encoders are compared with, by dotted key.

    Args:
      size: The size of the study.
    """
    if size == "small":
        return supervised(size, batch=128, epochs=10.0, warmup_epochs=1.0)
    return supervised(size, batch=4096, epochs=90.0, warmup_epochs=5.0)


def on_few_labels(
    size: str, fraction: float, *, batch: int, epochs: float, warmup_epochs: float
) -> dict[str, Any]:
    """The keys of a supervised run on a fraction of the labels, crop and flip alone; see above.

    Args:
      size: The size of the study.
      fraction: The fraction of each class's labels.
      batch: The number of images of a batch.
      epochs: The length in epochs.
      warmup_epochs: The length of the warm-up in epochs.
    """
    images = shipped.load(RECORDS[size]).data.num_examples
    length = supervised(size, batch=batch, epochs=epochs, warmup_epochs=warmup_epochs)
    return length | {
        "data.label_fraction": fraction,
        "data.num_examples": round(fraction * images),  # For costs where the images are not.
        "augment.ops": ("crop", "flip"),
    }

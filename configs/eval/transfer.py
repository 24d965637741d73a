"""Transfer to other datasets: the paper's linear evaluation and its fine-tuning.

Command:  simclr-eval --config=configs/eval/transfer.py:dataset=flowers --run=RUN
          simclr-eval --config=configs/eval/transfer.py:dataset=flowers,method=finetune --run=RUN
          simclr-eval --config=configs/eval/transfer.py:method=finetune --run=RUN \\
            --config.data.name=DATASET --config.transfer.steps=1000    (any dataset with labels)
Hardware: linear: any. Fine-tuning: the paper's grid is 57 trainings of 20,000 steps of 256 images,
          for one GPU or TPU host each; config.transfer.share divides it among several.
Result:   docs/results.md has transfer between small datasets; the paper's twelve: not measured yet.
"""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from simclr_jax.config import default, default_eval

# The twelve datasets of Table 8 in its order: where their images are, and the paper's metric.
# 'folder' stands for those that TFDS lacks: name their images by data.dir. A dataset without a
# validation split has a part of its training split for that, transfer.held_out.
DATASETS: dict[str, dict[str, Any]] = {
    "food": dict(name="food101", eval_split="validation", metric="top1"),
    "cifar10": dict(name="cifar10", eval_split="test", metric="top1"),
    "cifar100": dict(name="cifar100", eval_split="test", label_key="label", metric="top1"),
    "birdsnap": dict(name="folder", metric="top1"),
    "sun397": dict(name="sun397/standard-part1-120k", eval_split="test", metric="top1"),
    "cars": dict(name="cars196", eval_split="test", metric="top1"),
    "aircraft": dict(name="folder", metric="mean_per_class"),
    "voc2007": dict(
        name="voc/2007",
        eval_split="test",
        validation_split="validation",
        label_key="labels",
        metric="map11",
    ),
    "dtd": dict(name="dtd", eval_split="test", validation_split="validation", metric="top1"),
    "pets": dict(
        name="oxford_iiit_pet", eval_split="test", label_key="label", metric="mean_per_class"
    ),
    "caltech101": dict(name="caltech101", eval_split="test", metric="mean_per_class"),
    "flowers": dict(
        name="oxford_flowers102",
        eval_split="test",
        validation_split="validation",
        metric="mean_per_class",
    ),
}


def get_config(arguments: str | None = None) -> ConfigDict:
    """The config of transfer.

    Args:
      arguments: Some of dataset (one of `DATASETS`; without it, config.data.name or the run's own),
        method (linear or finetune) and start (pretrained, or random for the paper's fine-tuning of
        new weights), such as 'dataset=flowers,method=finetune'.

    Raises:
      ValueError: An argument is unknown, or has another value.

    Reference: Chen et al. 2020, appendix B.8 (arXiv 2002.05709).
    """
    given = default.arguments(arguments, dataset="", method="linear", start="pretrained")
    for name, allowed in (
        ("dataset", ("", *DATASETS)),
        ("method", ("linear", "finetune")),
        ("start", ("pretrained", "random")),
    ):
        if given[name] not in allowed:
            listed = ", ".join(filter(None, allowed))
            raise ValueError(f"'{name}={given[name]}': must be one of {listed}")
    c = default_eval.get_config("transfer")
    c.transfer = transfer = ConfigDict()
    # 'linear': a logistic regression of frozen features. 'finetune': the whole encoder is trained.
    transfer.method = given["method"]
    transfer.metric = "top1"  # 'top1', 'mean_per_class' or 'map11' (for images of several labels).
    # The fraction of each class's training images by which values are chosen where the dataset has
    # no validation split, between 0 and 1.
    transfer.held_out = 0.1
    # Linear: the smallest and the largest strength of L2, above 0, and the number of strengths, at
    # least 1, evenly spaced in their logarithm; see configs/eval/logistic.py.
    transfer.l2_range = (1e-6, 1e5)
    transfer.l2_count = 45
    # Fine-tuning: the number of steps, at least 1, and of images of a global batch.
    transfer.steps = 20000
    transfer.batch_size = 256
    transfer.microbatches = 1  # The number of parts of a batch whose gradients are added up.
    # Fine-tuning: the smallest and the largest learning rate, above 0, and the number of rates.
    transfer.lr_range = (1e-4, 0.1)
    transfer.lr_count = 7
    # Fine-tuning: the smallest and the largest weight decay, above 0, and the number of decays
    # besides none, at least 0. The decay of a rate lr is this number divided by lr.
    transfer.decay_range = (1e-6, 1e-3)
    transfer.decay_count = 7
    # Fine-tuning: the part of the grid that this command computes, (i, n) for the i-th of n parts
    # counted from 0, such as (0,8); None: all that is not computed yet.
    transfer.share = placeholder(tuple)
    if given["method"] == "linear":
        c.features.crop = 1.0
    if given["start"] == "random":
        transfer.steps, transfer.lr_range = 40000, (1e-3, 1.0)
        transfer.decay_range = (1e-5, 10**-1.5)
    row = DATASETS.get(given["dataset"], {})
    for key, value in row.items():
        if key == "metric":
            transfer.metric = value
        else:
            c.data[key] = value
    return c

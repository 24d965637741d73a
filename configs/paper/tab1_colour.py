"""Table 1: the strength of the colour distortion, for SimCLR and supervised.

Command:  simclr-sweep --config=configs/paper/tab1_colour.py:size=small --workdir=SWEEP
          simclr-sweep --config=configs/paper/tab1_colour.py:size=paper --workdir=SWEEP --list
Hardware: small: two CPU cores. paper: a TPU slice.
Result:   small: docs/paper.md. paper: not measured here.
"""

from typing import Any

from ml_collections import ConfigDict

from simclr_jax.config import default, default_sweep, studies
from simclr_jax.config.default_sweep import add_measure, add_point

COLOUR = ("crop", "flip", "jitter", "grey")
BLUR = (*COLOUR, "blur")
# The rows: what they are called, their keys, and the paper's numbers for SimCLR and supervised.
ROWS: dict[str, tuple[str, dict[str, Any], float, float | None]] = {
    "1of8": ("1/8", {"augment.ops": COLOUR, "augment.strength": 0.125}, 59.6, 77.0),
    "1of4": ("1/4", {"augment.ops": COLOUR, "augment.strength": 0.25}, 61.0, 76.7),
    "1of2": ("1/2", {"augment.ops": COLOUR, "augment.strength": 0.5}, 62.6, 76.5),
    "1": ("1", {"augment.ops": COLOUR, "augment.strength": 1.0}, 63.2, 75.7),
    "1-blur": ("1 + blur", {"augment.ops": BLUR, "augment.strength": 1.0}, 64.5, 75.4),
    "autoaugment": (
        "AutoAugment",
        {"augment.ops": ("crop", "flip"), "augment.policy": "autoaugment"},
        61.1,
        77.1,
    ),
    "1-blur-noflip": (
        "1 + blur, no flip",
        {"augment.ops": tuple(op for op in BLUR if op != "flip"), "augment.strength": 1.0},
        63.4,
        None,
    ),
}


def get_config(arguments: str | None = None) -> ConfigDict:
    """The study of the colour distortion.

    Args:
      arguments: 'size=small' or 'size=paper'; None: small.

    Reference: Chen et al. 2020, table 1 (arXiv 2002.05709).
    """
    size = default.arguments(arguments, size="small")["size"]
    small = size == "small"
    c = studies.begin(size)
    c.title = "Table 1: the strength of the colour distortion"
    c.setting = (
        "ResNet-18 x 1/8, 10,000 images of CIFAR-10 at 20 px, the smallest size at which the blur "
        "has more than one tap; SimCLR 5 epochs of batch 128 and linear top-1, supervised 10."
        if small
        else "ResNet-50 on ImageNet; SimCLR 100 epochs and linear top-1, supervised 90 epochs."
    )
    c.axes = ("colour", "training")
    c.run.augment.blur_on = "host"  # One program for all points.
    if small:
        c.run.data.image_size = 20
    learnt = studies.baseline(size)
    studies.add_linear(c, "linear", label="linear top-1")
    studies.add_knn(c)
    frozen = default_sweep.in_order(c.measures)
    add_measure(c, "classifier", "top1", protocol="classifier", label="top-1")
    for name, (label, keys, contrastive, baseline) in ROWS.items():
        at, paper = (label, "SimCLR"), {"linear": contrastive}
        add_point(c, f"simclr-{name}", at=at, run=keys, measures=frozen, paper=paper)
        if baseline:
            add_point(
                c,
                f"supervised-{name}",
                at=(label, "supervised"),
                run=learnt | keys,
                measures=("classifier",),
                paper={"classifier": baseline},
            )
    return c

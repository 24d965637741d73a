"""Table 4: the losses, each with its own rate, and the decoupled loss beside them.

Command:  simclr-sweep --config=configs/paper/tab4_losses.py:size=small --workdir=SWEEP
          simclr-sweep --config=configs/paper/tab4_losses.py:size=paper --workdir=SWEEP --list
Hardware: small: two CPU cores. paper: a TPU slice.
Result:   small: docs/paper.md. paper: not measured here.
"""

from typing import Any

from ml_collections import ConfigDict

from simclr_jax.config import default, default_sweep, shipped
from simclr_jax.config.default_sweep import add_measure, add_point

SEMI_HARD = {"loss.mining": "semi_hard"}
# The losses: what they are called, their keys, and the paper's numbers.
LOSSES: dict[str, tuple[str, dict[str, Any], float | None]] = {
    "margin": ("margin", {"loss.name": "margin_triplet"}, 50.9),
    "logistic": ("NT-Logistic", {"loss.name": "nt_logistic"}, 51.6),
    "margin-sh": ("margin, semi-hard", {"loss.name": "margin_triplet", **SEMI_HARD}, 57.5),
    "logistic-sh": ("NT-Logistic, semi-hard", {"loss.name": "nt_logistic", **SEMI_HARD}, 57.9),
    "nt-xent": ("NT-Xent", {"loss.name": "nt_xent"}, 63.9),
    "dcl": ("decoupled (DCL)", {"loss.name": "dcl"}, None),
}


def get_config(arguments: str | None = None) -> ConfigDict:
    """The study of the losses.

    Args:
      arguments: 'size=small' or 'size=paper'; None: small.

    Reference: Chen et al. 2020, tables 2 and 4, appendix B.10 (arXiv 2002.05709).
    """
    size = default.arguments(arguments, size="small")["size"]
    small = size == "small"
    c = default_sweep.get_config(size)
    c.title = "Table 4: the losses"
    c.setting = "Linear top-1. " + (
        "ResNet-18 x 1/8, 10,000 images of CIFAR-10 at 16 px, 5 epochs of batch 128."
        if small
        else "ResNet-50 after 100 epochs of ImageNet."
    )
    c.axes = ("loss", "")
    c.seeds = (0, 1, 2) if small else (0,)
    c.run = shipped.load("cifar10_small" if small else "imagenet")
    add_measure(c, "linear", "top1", protocol="linear", label="linear top-1")
    for name, (label, keys, number) in LOSSES.items():
        paper = {"linear": number} if number else {}
        add_point(c, name, at=(label, ""), run=keys, paper=paper)
    return c

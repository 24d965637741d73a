"""Figure 7: depth and width of the encoder, self-supervised and supervised.

Command:  simclr-sweep --config=configs/paper/fig7_size.py:size=small --workdir=SWEEP
          simclr-sweep --config=configs/paper/fig7_size.py:size=paper --workdir=SWEEP --list
Hardware: small: two CPU cores. paper: a TPU slice.
Result:   not measured yet; docs/paper.md says what is.
"""

from typing import Any

from ml_collections import ConfigDict

from simclr_jax.config import default, studies
from simclr_jax.config.default_sweep import add_measure, add_point


def get_config(arguments: str | None = None) -> ConfigDict:
    """The study of the size of the encoder.

    Args:
      arguments: 'size=small' or 'size=paper'; None: small.

    Reference: Chen et al. 2020, figure 7 (arXiv 2002.05709).
    """
    size = default.arguments(arguments, size="small")["size"]
    small = size == "small"
    c = studies.begin(size)
    c.title = "Figure 7: the size of the encoder"
    c.setting = (
        "10,000 images of CIFAR-10 at 16 px, batch 128; SimCLR 5 epochs and linear top-1, "
        "supervised 10 epochs."
        if small
        else "ImageNet; SimCLR 100 epochs and linear top-1, supervised 90 epochs."
    )
    c.axes = ("encoder", "training")
    learnt = studies.baseline(size)
    studies.add_linear(c, "linear", label="linear top-1")
    add_measure(c, "classifier", "top1", protocol="classifier", label="top-1")
    sizes = (
        ((18, 0.0625), (18, 0.125), (18, 0.25), (34, 0.125))
        if small
        else [(depth, width) for width in (1.0, 2.0, 4.0) for depth in (18, 34, 50, 101, 152)]
    )
    for depth, width in sizes:
        run: dict[str, Any] = {"model.depth": depth, "model.width": width}
        name = f"{depth}x{round(1 / width)}th" if width < 1 else f"{depth}x{width:g}"
        label = f"ResNet-{depth} x {width:g}"
        add_point(c, f"simclr-{name}", at=(label, "SimCLR"), run=run, measures=("linear",))
        at = (label, "supervised")
        add_point(c, f"supervised-{name}", at=at, run=learnt | run, measures=("classifier",))
    return c

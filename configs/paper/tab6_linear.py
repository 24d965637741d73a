"""Table 6: linear evaluation of encoders of several widths.

Command:  simclr-sweep --config=configs/paper/tab6_linear.py:size=small --workdir=SWEEP
          simclr-sweep --config=configs/paper/tab6_linear.py:size=paper --workdir=SWEEP --list
Hardware: small: two CPU cores. paper: a TPU slice.
Result:   not measured yet; docs/paper.md says what is.
"""

from ml_collections import ConfigDict

from simclr_jax.config import default, studies
from simclr_jax.config.default_sweep import add_point


def get_config(arguments: str | None = None) -> ConfigDict:
    """The study of linear evaluation.

    Args:
      arguments: 'size=small' or 'size=paper'; None: small.

    Reference: Chen et al. 2020, table 6 (arXiv 2002.05709).
    """
    size = default.arguments(arguments, size="small")["size"]
    small = size == "small"
    c = studies.begin(size)
    c.title = "Table 6: linear evaluation"
    c.setting = (
        "10,000 images of CIFAR-10 at 16 px, 10 epochs of batch 128."
        if small
        else "ResNet-50 of three widths after 1000 epochs of ImageNet."
    )
    c.axes = ("encoder", "")
    c.run.train.epochs = 10.0 if small else 1000.0
    studies.add_linear(c, "top1", label="top-1")
    studies.add_linear(c, "top5", label="top-5", metric="top5")
    if small:
        for name, width in ("16th", 0.0625), ("8th", 0.125), ("4th", 0.25):
            at = (f"ResNet-18 x {width:g}", "")
            add_point(c, f"18x{name}", at=at, run={"model.width": width})
    else:
        for width, top1, top5 in (1.0, 69.3, 89.0), (2.0, 74.2, 92.0), (4.0, 76.5, 93.2):
            at, paper = (f"ResNet-50 x {width:g}", ""), {"top1": top1, "top5": top5}
            add_point(c, f"50x{width:g}", at=at, run={"model.width": width}, paper=paper)
    return c

"""Figure 8: the projection head and its number of dimensions, and h against g(h).

Command:  simclr-sweep --config=configs/paper/fig8_head.py:size=small --workdir=SWEEP
          simclr-sweep --config=configs/paper/fig8_head.py:size=paper --workdir=SWEEP --list
Hardware: small: two CPU cores. paper: a TPU slice.
Result:   small: docs/paper.md. paper: not measured here.
"""

from ml_collections import ConfigDict

from simclr_jax.config import default, studies
from simclr_jax.config.default_sweep import add_point


def get_config(arguments: str | None = None) -> ConfigDict:
    """The study of the projection head.

    Args:
      arguments: 'size=small' or 'size=paper'; None: small.

    Reference: Chen et al. 2020, section 4.2 and figure 8 (arXiv 2002.05709).
    """
    size = default.arguments(arguments, size="small")["size"]
    small = size == "small"
    c = studies.begin(size, small="digits_small")
    c.title = "Figure 8: the projection head"
    c.setting = "Linear top-1 of the representation h and of the embedding g(h). " + (
        f"{studies.DIGITS}40 epochs of batch 128."
        if small
        else "ResNet-50 (2048 dimensions) after 100 epochs of ImageNet."
    )
    c.axes = ("head", "dimensions of g(h)")
    studies.add_linear(c, "h", label="h")
    studies.add_linear(c, "z", label="g(h)", layer="z")
    # Without a head z is h, of the width of the encoder.
    width = 64 if small else 2048
    add_point(c, "none", at=("none", width), run={"model.head": "none"}, measures=("h",))
    for head in ("linear", "nonlinear"):
        for dim in (16, 64, 256) if small else (32, 64, 128, 256, 512, 1024, 2048):
            run = {"model.head": head, "model.head_dim": dim}
            add_point(c, f"{head}-{dim}", at=(head, dim), run=run)
    c.figure.kind = "lines"
    return c

"""Figure 9 and table B.1: batch size and epochs, with both scalings of the rate.

Command:  simclr-sweep --config=configs/paper/fig9_batch_epochs.py:size=small --workdir=SWEEP
          simclr-sweep --config=configs/paper/fig9_batch_epochs.py:size=paper --workdir=SWEEP --list
Hardware: small: two CPU cores. paper: a TPU slice.
Result:   small: docs/paper.md. paper: not measured here.
"""

from ml_collections import ConfigDict

from simclr_jax.config import default, studies
from simclr_jax.config.default_sweep import add_point

# The paper's top-1 after 100, 200, 400 and 800 epochs by batch, with linear and with square-root
# scaling.
PAPER: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    256: ((57.5, 61.9, 64.7, 66.6), (62.8, 64.3, 65.7, 66.5)),
    512: ((60.7, 64.0, 66.2, 67.8), (63.8, 65.6, 66.7, 67.4)),
    1024: ((62.8, 65.3, 67.2, 68.5), (64.3, 66.1, 67.2, 68.3)),
    2048: ((64.0, 66.1, 68.1, 68.9), (64.7, 66.8, 67.9, 68.8)),
    4096: ((64.6, 66.5, 68.2, 68.9), (64.5, 66.8, 68.0, 69.1)),
    8192: ((64.8, 66.6, 67.8, 69.0), (64.8, 67.0, 68.3, 69.1)),
}


def get_config(arguments: str | None = None) -> ConfigDict:
    """The study of batch size and epochs.

    Args:
      arguments: Some of size (small or paper) and scaling (linear or sqrt), such as
        'size=small,scaling=sqrt'; None: small, linear.

    Raises:
      ValueError: An argument has another value.

    Reference: Chen et al. 2020, figure 9 and table B.1 (arXiv 2002.05709).
    """
    given = default.arguments(arguments, size="small", scaling="linear")
    size, scaling = given["size"], given["scaling"]
    if scaling not in ("linear", "sqrt"):
        raise ValueError(f"'scaling={scaling}': must be linear or sqrt")
    small = size == "small"
    c = studies.begin(size, small="digits_small")
    c.title = f"Figure 9: batch size and epochs, rates with {scaling} scaling"
    c.setting = "Linear top-1. " + (
        f"{studies.DIGITS}both scalings with the same rate at a batch of 128."
        if small
        else "ResNet-50 on ImageNet. Both scalings have the same rate at a batch of 4096."
    )
    c.axes = ("batch", "epochs")
    if scaling == "sqrt":
        c.run.optim.update(lr=0.1326 if small else 0.075, lr_scaling="sqrt")
    studies.add_linear(c, "linear", label="linear top-1")
    epochs = (10, 20, 40) if small else (100, 200, 400, 800)
    for batch in (32, 64, 128, 256) if small else PAPER:
        for column, length in enumerate(epochs):
            run = {"train.batch_size": batch, "train.epochs": float(length)}
            if small:
                run["optim.warmup_epochs"] = length / 10
            numbers = () if small else PAPER[batch][scaling == "sqrt"]
            paper = {"linear": numbers[column]} if numbers else {}
            add_point(c, f"{batch}-{length}", at=(batch, length), run=run, paper=paper)
    c.figure.kind = "lines"
    return c

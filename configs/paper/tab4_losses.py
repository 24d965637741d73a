"""Table 4: the losses, with the decoupled loss beside them.

Command:  simclr-sweep --config=configs/paper/tab4_losses.py:size=small --workdir=SWEEP
          simclr-sweep --config=configs/paper/tab4_losses.py:size=small,tune=1 --workdir=TUNED
          simclr-sweep --config=configs/paper/tab4_losses.py:size=paper --workdir=SWEEP --list
Hardware: small: two CPU cores. paper: a TPU slice.
Result:   small: docs/paper.md. paper: not measured here.

With tune=1 it is the search for temperatures and margins, on seed 10; size=paper then searches the
rates as well (appendix B.10).
"""

from typing import Any

from ml_collections import ConfigDict

from simclr_jax.config import default, studies
from simclr_jax.config.default_sweep import add_point

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
# The margin or the temperature of each loss in the small form, chosen by the search (tune=1).
SMALL = {
    **{"margin": 0.4, "logistic": 0.5, "margin-sh": 0.4, "logistic-sh": 0.1},
    **{"nt-xent": 0.5, "dcl": 0.5},
}
# The same in the paper's setting; the paper does not say what it chose.
PAPER = {
    **{"margin": 0.8, "logistic": 0.2, "margin-sh": 0.8, "logistic-sh": 0.2},
    **{"nt-xent": 0.1, "dcl": 0.1},
}


def key(name: str) -> str:
    """The key that a loss is tuned by."""
    return "loss.margin" if name.startswith("margin") else "loss.temperature"


def get_config(arguments: str | None = None) -> ConfigDict:
    """The study of the losses.

    Args:
      arguments: Some of size (small or paper) and tune (1: the search for temperatures and
        margins), such as 'size=small,tune=1'; None: small, no search.

    Reference: Chen et al. 2020, tables 2 and 4, appendix B.10 (arXiv 2002.05709); Yeh et al. 2021
    (arXiv 2110.06848).
    """
    given = default.arguments(arguments, size="small", tune=0)
    small = given["size"] == "small"
    c = studies.begin(given["size"], small="digits_small")
    c.title = "Table 4: the losses"
    c.setting = "Linear top-1. " + (
        f"{studies.DIGITS}40 epochs of batch 128."
        if small
        else "ResNet-50 after 100 epochs of ImageNet."
    )
    c.axes = ("loss", "")
    studies.add_linear(c, "linear", label="linear top-1")
    if given["tune"]:
        _tune(c, small)
        return c
    values = SMALL if small else PAPER
    for name, (label, keys, number) in LOSSES.items():
        run = keys | {key(name): values[name]}
        add_point(c, name, at=(label, ""), run=run, paper={"linear": number} if number else {})
    return c


def _tune(c: ConfigDict, small: bool) -> None:
    """Makes a study the search for the margin, the temperature and the rate of each loss."""
    c.title, c.axes, c.seeds = "Table 4: the search", ("loss and rate", "margin or τ"), (10,)
    c.setting += " Margins of the margin losses, temperatures of the others."
    temperatures = (0.1, 0.2, 0.5) if small else (0.1, 0.2, 0.5, 1.0)
    margins = (0.4, 0.8, 1.6) if small else (0.0, 0.4, 0.8, 1.6)
    for rate in (c.run.optim.lr,) if small else (0.01, 0.1, 0.3, 0.5, 1.0):
        for name, (label, keys, _) in LOSSES.items():
            for value in margins if name.startswith("margin") else temperatures:
                if value == 0 and "loss.mining" in keys:
                    continue  # No negative is within a margin of 0.
                run = keys | {key(name): value, "optim.lr": rate}
                point = f"{name}-{rate:g}-{value:g}".replace(".", "_")
                add_point(c, point, at=(f"{label}, {rate:g}", value), run=run)
    c.figure.kind = "heatmap"

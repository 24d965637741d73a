"""Table 5: the temperature, with and without normalisation.

Command:  simclr-sweep --config=configs/paper/tab5_temperature.py:size=small --workdir=SWEEP
          simclr-sweep --config=configs/paper/tab5_temperature.py:size=paper --workdir=SWEEP --list
Hardware: small: two CPU cores. paper: a TPU slice.
Result:   small: docs/paper.md. paper: not measured here.
"""

from ml_collections import ConfigDict

from simclr_jax.config import default, studies
from simclr_jax.config.default_sweep import add_measure, add_point

# The paper's entropy, contrastive accuracy and top-1 by temperature, with and without
# normalisation.
ROWS = {
    True: {
        0.05: (1.0, 90.5, 59.7),
        0.1: (4.5, 87.8, 64.4),
        0.5: (8.2, 68.2, 60.7),
        1.0: (8.3, 59.1, 58.0),
    },
    False: {10.0: (0.5, 91.7, 57.2), 100.0: (0.5, 92.1, 57.0)},
}


def get_config(arguments: str | None = None) -> ConfigDict:
    """The study of temperature and normalisation.

    Args:
      arguments: 'size=small' or 'size=paper'; None: small.

    Reference: Chen et al. 2020, table 5 (arXiv 2002.05709).
    """
    size = default.arguments(arguments, size="small")["size"]
    small = size == "small"
    c = studies.begin(size, small="digits_small")
    c.title = "Table 5: temperature and normalisation"
    c.setting = "Entropy and accuracy of the contrastive task over a batch, and linear top-1. " + (
        f"{studies.DIGITS}40 epochs of batch 128."
        if small
        else "ResNet-50 after 100 epochs of ImageNet, batch 4096."
    )
    c.axes = ("embeddings", "temperature")
    add_measure(c, "entropy", "contrastive_entropy", label="entropy", percent=False)
    add_measure(c, "accuracy", "contrastive_accuracy", label="contrastive accuracy")
    studies.add_linear(c, "linear", label="linear top-1")
    for normalised, rows in ROWS.items():
        label = "normalised" if normalised else "not normalised"
        for temperature, numbers in rows.items():
            name = f"{'norm' if normalised else 'raw'}-{temperature:g}".replace(".", "_")
            run = {"loss.normalize": normalised, "loss.temperature": temperature}
            paper = dict(zip(("entropy", "accuracy", "linear"), numbers, strict=True))
            add_point(c, name, at=(label, temperature), run=run, paper=paper)
    c.figure.kind = "lines"
    return c

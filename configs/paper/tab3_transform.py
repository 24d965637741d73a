"""Table 3: what h and g(h) know of the transformation of an image.

Command:  simclr-sweep --config=configs/paper/tab3_transform.py:size=small --workdir=SWEEP
          simclr-sweep --config=configs/paper/tab3_transform.py:size=paper --workdir=SWEEP --list
Hardware: small: two CPU cores. paper: a TPU slice.
Result:   not measured yet; docs/paper.md says what is.
"""

from typing import Any

from ml_collections import ConfigDict

from simclr_jax.config import default, studies
from simclr_jax.config.default_sweep import add_measure, add_point


def get_config(arguments: str | None = None) -> ConfigDict:
    """The study of what representations know of transformations.

    Args:
      arguments: 'size=small' or 'size=paper'; None: small.

    Reference: Chen et al. 2020, table 3 (arXiv 2002.05709).
    """
    size = default.arguments(arguments, size="small")["size"]
    small = size == "small"
    c = studies.begin(size)
    c.title = "Table 3: what h and g(h) know of the transformation"
    c.setting = "Accuracy of an MLP. The last row is pretrained with rotation, noise, Sobel. "
    c.setting += (
        "ResNet-18 x 1/8, h and g(h) of 64 dimensions, 10,000 images of CIFAR-10 at 16 px, "
        "5 epochs of batch 128."
        if small
        else "ResNet-50, h and g(h) of 2048 dimensions, 100 epochs of ImageNet."
    )
    c.axes = ("pretraining", "")
    c.run.model.head_dim = 64 if small else 2048
    labels = {
        "colour": "colour or grey",
        "rotation": "rotation",
        "noise": "noise or not",
        "sobel": "Sobel or not",
    }
    for name, of_images in labels.items():
        of = ("colour",) if name == "colour" else ("rotation", "noise", "sobel")
        for layer, shown in ("h", "h"), ("z", "g(h)"):
            keys: dict[str, Any] = {"features.layer": layer, "transform.of": of}
            if small:
                keys["transform.epochs"] = 10.0
            label = f"{of_images}, {shown}"
            measure = f"{name}-{layer}"
            add_measure(c, measure, name, protocol="transform", label=label, keys=keys)
    add_point(
        c,
        "standard",
        at=("standard", ""),
        run={},
        measures=("colour-h", "colour-z"),
        paper={"colour-h": 99.3, "colour-z": 97.4},
    )
    paper = {
        **{"rotation-h": 67.6, "rotation-z": 25.6, "noise-h": 99.5, "noise-z": 59.6},
        **{"sobel-h": 96.6, "sobel-z": 56.3},
    }
    ops = (*c.run.augment.ops, "rotate", "noise", "sobel")
    if not small:  # The blur, which the device applies, comes last.
        ops = (*(op for op in ops if op != "blur"), "blur")
    run = {"augment.ops": ops}
    add_point(
        c, "added", at=("with rotation, noise, Sobel", ""), run=run, measures=[*paper], paper=paper
    )
    return c

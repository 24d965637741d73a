"""Figure 5: compositions of two augmentations, on one view of two.

Command:  simclr-sweep --config=configs/paper/fig5_augmentation.py:size=small --workdir=SWEEP
          simclr-sweep --config=configs/paper/fig5_augmentation.py:size=paper --workdir=SWEEP --list
Hardware: small: two CPU cores. paper: a TPU slice.
Result:   small: docs/paper.md. paper: not measured here.
"""

from ml_collections import ConfigDict

from simclr_jax.config import default, studies
from simclr_jax.config.default_sweep import add_point

# The operations under study, and the augmentations that each of them is.
OPERATIONS = {
    "crop": ("crop",),
    "cutout": ("cutout",),
    "colour": ("jitter", "grey"),
    "sobel": ("sobel",),
    "noise": ("noise",),
    "blur": ("blur",),
    "rotate": ("rotate",),
}


def get_config(arguments: str | None = None) -> ConfigDict:
    """The study of augmentations alone and in pairs.

    Args:
      arguments: 'size=small' or 'size=paper'; None: small.

    Reference: Chen et al. 2020, section 3.1 and figure 5 (arXiv 2002.05709).
    """
    size = default.arguments(arguments, size="small")["size"]
    small = size == "small"
    c = studies.begin(size)
    c.title = "Figure 5: compositions of augmentations"
    c.setting = (
        "The two views of an image share a crop; the row's, then the column's operations change "
        "one of them. "
    )
    c.setting += (
        "ResNet-18 x 1/8, 10,000 images of CIFAR-10 at 20 px, the smallest size at which the blur "
        "has more than one tap, 5 epochs of batch 128."
        if small
        else "ResNet-50 after 100 epochs of ImageNet."
    )
    c.axes = ("first", "second")
    c.seeds = (0,)
    c.run.augment.blur_on = "host"  # One program for all points.
    if small:
        c.run.data.image_size = 20
    studies.add_linear(c, "linear", label="linear top-1")
    studies.add_knn(c)
    for first, one in OPERATIONS.items():
        for second, other in OPERATIONS.items():
            tested = one if first == second else (*one, *other)
            ops = (("shared_crop",), ("shared_crop", *tested))
            # What the figure shows where crop and colour meet, read from it.
            paper = {"linear": 56.0} if {first, second} == {"crop", "colour"} else {}
            name = first if first == second else f"{first}+{second}"
            add_point(c, name, at=(first, second), run={"augment.ops": ops}, paper=paper)
    c.figure.update(kind="heatmap", row_mean=True)
    return c

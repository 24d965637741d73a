"""Table 8: transfer to other datasets, by a linear classifier and by fine-tuning.

Command:  simclr-sweep --config=configs/paper/tab8_transfer.py:size=small --workdir=SWEEP
          simclr-sweep --config=configs/paper/tab8_transfer.py:size=paper --workdir=SWEEP --list
Hardware: small: two CPU cores. paper: a TPU slice.
Result:   not measured yet; docs/paper.md says what is.
"""

from typing import Any

from ml_collections import ConfigDict

from simclr_jax.config import default, default_sweep, studies
from simclr_jax.config.default_sweep import add_measure, add_point

DATASETS = (
    *("food", "cifar10", "cifar100", "birdsnap", "sun397", "cars", "aircraft", "voc2007", "dtd"),
    *("pets", "caltech101", "flowers"),
)
METRICS = {
    **dict.fromkeys(("aircraft", "pets", "caltech101", "flowers"), "mean_per_class"),
    "voc2007": "map11",
}
# The kinds of transfer: the method, the weights it starts from, and what it is called.
KINDS = {
    "linear": ("linear", "pretrained", "linear"),
    "finetune": ("finetune", "pretrained", "fine-tuned"),
    "random": ("finetune", "random", "from random weights"),
}
# The paper's numbers of ResNet-50 (appendix B.5) by `DATASETS`: of SimCLR, then of supervised.
PAPER = {
    "linear": (
        (68.4, 90.6, 71.6, 37.4, 58.8, 50.3, 50.3, 80.5, 74.5, 83.6, 90.3, 91.2),
        (72.3, 93.6, 78.3, 53.7, 61.9, 66.7, 61.0, 82.8, 74.9, 91.5, 94.5, 94.7),
    ),
    "finetune": (
        (88.2, 97.7, 85.9, 75.9, 63.5, 91.3, 88.1, 84.1, 73.2, 89.2, 92.1, 97.0),
        (88.3, 97.5, 86.4, 75.8, 64.3, 92.1, 86.0, 85.0, 74.6, 92.1, 93.3, 97.6),
    ),
    "random": ((86.9, 95.9, 80.2, 76.1, 53.6, 91.4, 85.9, 67.3, 64.8, 81.5, 72.6, 92.0),),
}


def paper(method: str, row: int) -> dict[str, float]:
    """The paper's numbers by measure, of SimCLR (row 0) or of supervised (row 1)."""
    numbers = zip(DATASETS, PAPER[method][row], strict=True)
    return {f"{dataset}-{method}": number for dataset, number in numbers}


def get_config(arguments: str | None = None) -> ConfigDict:
    """The study of transfer.

    Args:
      arguments: 'size=small' or 'size=paper'; None: small.

    Reference: Chen et al. 2020, table 8, appendices B.5 and B.8 (arXiv 2002.05709).
    """
    size = default.arguments(arguments, size="small")["size"]
    small = size == "small"
    c = studies.begin(size)
    c.title = "Table 8: transfer"
    c.setting = (
        "From 10,000 images of CIFAR-10 at 16 px (ResNet-18 x 1/8; 5 epochs of SimCLR, 10 with "
        "labels) to the digits that come with the package; fine-tuned at 2 rates without decay."
        if small
        else "From ImageNet (ResNet-50; 1000 epochs of SimCLR, 90 with labels) to twelve datasets; "
        "name the folders of Birdsnap and Aircraft by --config.measures.NAME.eval.data.dir."
    )
    c.axes = ("encoder", "")
    learnt = studies.baseline(size)
    if not small:
        c.run.train.epochs = 1000.0
    for dataset in ("digits",) if small else DATASETS:
        for kind, (method, start, shown) in KINDS.items():
            arguments = f"method={method},start={start}"
            keys: dict[str, Any] = {"data.name": "digits"} if small else {}
            if small and method == "finetune":
                keys |= {"transfer.steps": 200, "transfer.batch_size": 64, "transfer.lr_count": 2}
                keys |= {"transfer.lr_range": (0.01, 0.1), "transfer.decay_count": 0}
            if not small:
                arguments += f",dataset={dataset}"
            metric = METRICS.get(dataset, "top1")
            name, label = f"{dataset}-{kind}", f"{dataset}, {shown}"
            of: dict[str, Any] = {"protocol": "transfer", "arguments": arguments, "keys": keys}
            add_measure(c, name, metric, label=label, untrained=kind == "random", **of)
    theirs: list[dict[str, float]] = [{}, {}]
    if not small:
        theirs = [paper("linear", row) | paper("finetune", row) for row in range(2)]
        theirs[0] |= paper("random", 0)
    add_point(c, "simclr", at=("SimCLR", ""), run={}, paper=theirs[0])
    # What is learnt from random weights does not depend on the encoder's training.
    pretrained = [name for name in default_sweep.in_order(c.measures) if "random" not in name]
    at = ("supervised", "")
    add_point(c, "supervised", at=at, run=learnt, measures=pretrained, paper=theirs[1])
    return c

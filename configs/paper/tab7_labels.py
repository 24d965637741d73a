"""Table 7: fine-tuning on few labels against supervised training on them.

Command:  simclr-sweep --config=configs/paper/tab7_labels.py:size=small --workdir=SWEEP
          simclr-sweep --config=configs/paper/tab7_labels.py:size=paper --workdir=SWEEP --list
Hardware: small: two CPU cores. paper: a TPU slice.
Result:   not measured yet; docs/paper.md says what is.
"""

from ml_collections import ConfigDict

from simclr_jax.config import default, default_sweep, shipped, studies
from simclr_jax.config.default_sweep import add_measure, add_point

# The fraction of the labels, the same in percent, and the batch and the epochs of the small form.
LABELS = ((0.01, 1, 50, 60), (0.1, 10, 64, 30))
# The encoders: what they are called, their width, and the paper's top-1 and top-5 by `LABELS`.
SMALL: dict[str, tuple[str, float, tuple[tuple[float, float], ...]]] = {
    "16th": ("SimCLR, ResNet-18 x 1/16", 0.0625, ()),
    "8th": ("SimCLR, ResNet-18 x 1/8", 0.125, ()),
}
PAPER: dict[str, tuple[str, float, tuple[tuple[float, float], ...]]] = {
    "1": ("SimCLR, ResNet-50", 1.0, ((48.3, 75.5), (65.6, 87.8))),
    "2": ("SimCLR, ResNet-50 x 2", 2.0, ((58.5, 83.0), (71.7, 91.2))),
    "4": ("SimCLR, ResNet-50 x 4", 4.0, ((63.0, 85.8), (74.4, 92.6))),
}
SUPERVISED = ((25.4, 48.4), (56.4, 80.4))  # The paper's top-1 and top-5 of ResNet-50 by `LABELS`.


def get_config(arguments: str | None = None) -> ConfigDict:
    """The study of few labels.

    Args:
      arguments: 'size=small' or 'size=paper'; None: small.

    Reference: Chen et al. 2020, table 7, appendices B.4 and B.5 (arXiv 2002.05709).
    """
    size = default.arguments(arguments, size="small")["size"]
    small = size == "small"
    c = studies.begin(size)
    c.title = "Table 7: few labels"
    c.setting = (
        "10,000 images of CIFAR-10 at 16 px: 100 (1 %) or 1,000 (10 %) of the labels, fine-tuned "
        "after 10 epochs of SimCLR, or supervised from random weights with the same labels."
        if small
        else "ImageNet: fine-tuned after 1000 epochs of SimCLR (appendix B.5), or supervised."
    )
    c.axes = ("training", "labels")
    data = studies.RECORDS[size]
    base = shipped.load(data)
    c.run.train.epochs = 10.0 if small else 1000.0
    add_measure(c, "top1", "top1", protocol="classifier", label="top-1")
    add_measure(c, "top5", "top5", protocol="classifier", label="top-5")
    encoders = SMALL if small else PAPER
    for name, (label, width, _) in encoders.items():
        keys = {"model.width": width}
        add_point(c, f"simclr-{name}", at=(label, "all"), run=keys, measures=())
    for place, (fraction, shown, batch, epochs) in enumerate(LABELS):
        few = f"data={data},recipe=simclr,labels={fraction},batch={batch if small else 4096}"
        tuned = default_sweep.differences(shipped.load("finetune", few), base)
        for name, (label, width, theirs) in encoders.items():
            keys = tuned | {"model.width": width, "init.run": f"point:simclr-{name}"}
            paper = {"top1": theirs[place][0], "top5": theirs[place][1]} if theirs else {}
            add_point(c, f"tuned-{name}-{shown}", at=(label, f"{shown} %"), run=keys, paper=paper)
        # In the small form as many steps again, for the weights are random.
        images, length, warmup = (batch, 2.0 * epochs, 2.0) if small else (4096, 100.0, 5.0)
        numbers = {} if small else dict(zip(("top1", "top5"), SUPERVISED[place], strict=True))
        run = studies.on_few_labels(
            size, fraction, batch=images, epochs=length, warmup_epochs=warmup
        )
        at = ("supervised", f"{shown} %")
        add_point(c, f"supervised-{shown}", at=at, run=run, paper=numbers)
    return c

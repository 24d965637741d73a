"""SimCLRv2: fine-tuning with few labels, then distillation to a small or an equal student.

Command:  simclr-sweep --config=configs/paper/v2_distill.py:size=small --workdir=SWEEP
          simclr-sweep --config=configs/paper/v2_distill.py:size=paper --workdir=SWEEP --list
Hardware: small: two CPU cores. paper: a TPU slice.
Result:   not measured yet; docs/paper.md says what is.
"""

from typing import Any

from ml_collections import ConfigDict

from simclr_jax.config import default, default_sweep, shipped, studies
from simclr_jax.config.default_sweep import add_measure, add_point


def student(base: ConfigDict, small: bool) -> ConfigDict:
    """The config of a student, with the optimizer of configs/distill.py on the data of a base."""
    c = ConfigDict(base.to_dict())
    recipe = shipped.load("distill", "data=imagenet")
    c.objective.name = "distill"
    c.model.head = recipe.model.head
    c.augment.ops = recipe.augment.ops
    c.optim = recipe.optim
    c.train.epochs = 10.0 if small else recipe.train.epochs
    c.train.batch_size = 128 if small else recipe.train.batch_size
    c.optim.warmup_epochs = 0.05 * c.train.epochs
    return c


def get_config(arguments: str | None = None) -> ConfigDict:
    """The study of distillation.

    Args:
      arguments: 'size=small' or 'size=paper'; None: small.

    Reference: Chen et al. 2020, SimCLRv2, section 3 (arXiv 2006.10029).
    """
    size = default.arguments(arguments, size="small")["size"]
    small = size == "small"
    c = studies.begin(size)
    c.title = "SimCLRv2: distillation"
    c.setting = (
        "Teachers are fine-tuned with 10 % of the labels; students learn what they say of all "
        "images of "
    )
    c.setting += (
        "CIFAR-10 (10,000 at 16 px). ResNet-18 x 1/8, and x 1/4 (large)."
        if small
        else "ImageNet. ResNet-50, and ResNet-152 x 3 with selective kernels (large)."
    )
    c.axes = ("training", "")
    data = studies.RECORDS[size]
    base = shipped.load(data)
    c.run.model.head_layers = 3
    c.run.train.epochs = 10.0 if small else 800.0
    large: dict[str, Any] = (
        {"model.width": 0.25}
        if small
        else {"model.depth": 152, "model.width": 3.0, "model.sk_ratio": 0.0625}
    )
    add_measure(c, "top1", "top1", protocol="classifier", label="top-1")
    few = f"data={data},labels=0.1,batch={64 if small else 1024}"
    tuned = default_sweep.differences(shipped.load("finetune", few), base)
    tuned["model.head_layers"] = 3
    alone = (
        studies.on_few_labels(size, 0.1, batch=64, epochs=60.0, warmup_epochs=2.0)
        if small
        else studies.on_few_labels(size, 0.1, batch=4096, epochs=100.0, warmup_epochs=5.0)
    )
    add_point(c, "supervised", at=("supervised, 10 % of the labels", ""), run=alone)
    students = default_sweep.differences(student(base, small), base)
    for name, size in ("small", {}), ("large", large):
        add_point(c, f"simclr-{name}", at=("", ""), run=size, measures=())
        keys = tuned | size | {"init.run": f"point:simclr-{name}"}
        add_point(c, f"tuned-{name}", at=(f"fine-tuned, {name}", ""), run=keys)
        keys = students | {"objective.teacher": f"point:tuned-{name}"}
        add_point(c, f"student-{name}", at=(f"small student of the {name} one", ""), run=keys)
    return c

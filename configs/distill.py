"""Distillation: a student learns what a fine-tuned teacher says of all images.

Command:  simclr-train --config=configs/distill.py --workdir=RUN --config.objective.teacher=TEACHER
          simclr-train --config=configs/distill.py:data=imagenet --workdir=RUN \\
            --config.objective.teacher=TEACHER
          TEACHER is a run with a classifier of the same classes: a fine-tuned or an imported one.
          With some labels: --config.data.label_fraction=0.1 --config.objective.label_weight=0.1
Hardware: CIFAR-10: one GPU; ImageNet: a TPU slice (time not measured yet).
Result:   docs/results.md has a small student on a fifth of CIFAR-10; not measured in full yet.

The optimizer, its schedule, the temperature and the augmentations are SimCLRv2's (arXiv 2006.10029,
section 3): LARS at 0.1·√B with a warm-up of 5 % of the epochs, crop and flip alone. Its batch of
4096 and its 400 epochs are those of ImageNet; CIFAR-10's are chosen for one GPU.
"""

from ml_collections import ConfigDict

from simclr_jax.config import default


def get_config(arguments: str | None = None) -> ConfigDict:
    """The config of a student.

    Args:
      arguments: 'data=cifar10' (ResNet-18) or 'data=imagenet' (ResNet-50); None: CIFAR-10.

    Raises:
      ValueError: An argument is unknown.
    """
    data = default.arguments(arguments, data="cifar10")["data"]
    if data not in ("cifar10", "imagenet"):
        raise ValueError(f"'data={data}': must be cifar10 or imagenet")
    c = default.get_config()
    if data == "cifar10":
        c.data.update(
            name="cifar10", eval_split="test", image_size=32, num_examples=50000, num_classes=10
        )
        c.model.depth = 18
        c.train.update(batch_size=512, epochs=100.0)
    else:
        c.data.update(
            name="imagenet2012", eval_split="validation", num_examples=1281167, num_classes=1000
        )
        c.model.update(depth=50, dtype="bfloat16")
        c.train.update(batch_size=4096, epochs=400.0)
    c.objective.name = "distill"
    c.model.head = "none"  # The classifier sits on h, and nothing else is trained.
    c.augment.ops = ("crop", "flip")
    c.optim.update(lr=0.1, lr_scaling="sqrt", weight_decay=1e-4)
    c.optim.warmup_epochs = 0.05 * c.train.epochs
    c.eval.every_epochs = c.checkpoint.every_epochs = 10.0
    return c

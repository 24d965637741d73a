"""Fine-tuning on some or all labels, from the weights of another run.

Command:  simclr-train --config=configs/finetune.py --workdir=TUNED --config.init.run=RUN
          simclr-train --config=configs/finetune.py:data=cifar10,labels=0.1,batch=256 \\
            --workdir=TUNED --config.init.run=RUN
          simclr-train --config=configs/finetune.py:recipe=simclr --workdir=TUNED \\
            --config.init.run=RUN
Hardware: as the pretraining of RUN, whose encoder it trains; a few epochs of few images.
Result:   docs/labels.md has one of the digits, docs/results.md small ones of CIFAR-10.
          ImageNet not measured yet (published top-1 for ResNet-50: 1 % of the labels 0.579,
          10 % 0.684; of SimCLR 0.483, 0.656).

`recipe` is SimCLRv2's, or SimCLR's with the classifier on h. `data` is the record that RUN was
pretrained with: its data, image size and model. Where RUN has other values of these keys, set them
here too. Labels are drawn by `data.label_seed`, the same fraction of each class; the published
lists of ImageNet are
--config.data.name=imagenet2012_subset/1pct with --config.data.label_fraction=None.
"""

from ml_collections import ConfigDict

from simclr_jax.augment.draws import one_a_view
from simclr_jax.config import default, shipped


def get_config(arguments: str | None = None) -> ConfigDict:
    """The config of fine-tuning.

    Args:
      arguments: Some of labels (the fraction of the labels that are seen), recipe (simclrv2 or
        simclr), batch (images; 0: those of the recipe), and data (the record of the pretraining),
        such as 'data=cifar10,labels=0.1,batch=256'.

    Raises:
      ValueError: An argument is unknown, or has another type.

    Reference: Chen et al. 2020, SimCLRv2, section 3 (arXiv 2006.10029); SimCLR, appendix B.5 (arXiv
    2002.05709).
    """
    given = default.arguments(arguments, labels=0.01, recipe="simclrv2", batch=0, data="imagenet")
    labels, recipe = given["labels"], given["recipe"]
    if not 0 < labels <= 1:
        raise ValueError(f"'labels={labels:g}': must be above 0 and at most 1")
    if recipe not in ("simclrv2", "simclr"):
        raise ValueError(f"'recipe={recipe}': must be simclrv2 or simclr")
    c = shipped.load(given["data"])
    c.objective.name = "supervised"
    first = one_a_view(c.augment.ops, 1)[0]  # Of several views' lists, the first.
    c.augment.ops = tuple(op for op in first if op in ("crop", "flip"))
    c.augment.policy = None
    if labels < 1.0:
        c.data.label_fraction = labels
        if c.data.num_examples is not None:  # For simclr-plan.
            c.data.num_examples = round(labels * c.data.num_examples)
    if recipe == "simclrv2":
        c.optim.update(name="lars", lr=0.005, lr_scaling="sqrt")
        c.train.batch_size = given["batch"] or 1024
        if labels < 1.0:
            c.model.classifier_layer = "head1"
    else:
        c.optim.update(name="momentum", lr=0.05, lr_scaling="linear")
        c.train.batch_size = given["batch"] or 4096
    c.optim.update(weight_decay=0.0, warmup_epochs=0.0)
    c.train.epochs = 60.0 if labels < 0.1 else 30.0
    c.eval.every_epochs = 10.0
    c.checkpoint.every_epochs = 10.0
    c.log.every_steps = 10
    return c

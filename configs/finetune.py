"""Fine-tuning on some or all labels, from the weights of another run: SimCLRv2's settings.

Command:  simclr-train --config=configs/finetune.py --workdir=TUNED --config.init.run=RUN
          simclr-train --config=configs/finetune.py:data=cifar10,labels=0.1,batch=256 \\
            --workdir=TUNED --config.init.run=RUN
Hardware: as the pretraining of RUN, whose encoder it trains; a few epochs of few images.
Result:   docs/labels.md has one of the digits. ImageNet not measured yet (published top-1 for
          ResNet-50: 1 % of the labels 0.579, 10 % 0.684).

`data` is the record that RUN was pretrained with: its data, image size and model. Where RUN has
other values of these keys, set them here too. Labels are drawn by `data.label_seed`, the same
fraction of each class; the published lists of ImageNet are
--config.data.name=imagenet2012_subset/1pct with --config.data.label_fraction=None.
"""

from ml_collections import ConfigDict

from simclr_jax.config import default, shipped


def get_config(arguments: str | None = None) -> ConfigDict:
    """The config of fine-tuning.

    Args:
      arguments: Some of labels (the fraction of the labels that are seen), batch (images), and data
        (the record of the pretraining), such as 'data=cifar10,labels=0.1,batch=256'.

    Raises:
      ValueError: An argument is unknown, or has another type.

    Reference: Chen et al. 2020, SimCLRv2, section 3 (arXiv 2006.10029).
    """
    given = default.arguments(arguments, labels=0.01, batch=1024, data="imagenet")
    c = shipped.load(given["data"])
    few = given["labels"] < 1.0
    c.objective.name = "supervised"
    c.augment.ops = tuple(op for op in c.augment.ops if op in ("crop", "flip"))
    if few:
        c.data.label_fraction = given["labels"]
        if c.data.num_examples is not None:  # For simclr-plan.
            c.data.num_examples = round(given["labels"] * c.data.num_examples)
        c.model.classifier_layer = "head1"
    c.optim.update(name="lars", lr=0.005, lr_scaling="sqrt", weight_decay=0.0, warmup_epochs=0.0)
    c.train.batch_size = given["batch"]
    c.train.epochs = 60.0 if given["labels"] < 0.1 else 30.0
    c.eval.every_epochs = 10.0
    c.checkpoint.every_epochs = 10.0
    c.log.every_steps = 10
    return c

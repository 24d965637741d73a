"""ImageNet: the paper's recipe, with any encoder.

Command:  simclr-train --config=configs/imagenet.py --workdir=RUN
          simclr-train --config=configs/imagenet.py:depth=152,width=3,sk_ratio=0.0625 --workdir=RUN
Hardware: a TPU slice of 32 to 128 cores; the paper's 100 epochs took 1.5 h on 128 TPU v3 cores.
Time:     not measured yet here.
Result:   not measured yet (published: 0.693 linear top-1 after 1000 epochs, ResNet-50).

Batches below 4096 do better with --config.optim.lr_scaling=sqrt --config.optim.lr=0.075
(and --config.loss.temperature=0.2 --config.model.head_layers=3, by the authors' later advice).
"""

from ml_collections import ConfigDict

from simclr_jax.config import default


def get_config(arguments: str | None = None) -> ConfigDict:
    """The config of ImageNet.

    Args:
      arguments: Some of depth, width, sk_ratio and epochs, such as 'depth=152,width=3'.

    Raises:
      ValueError: An argument is unknown, or has another type.
    """
    given = default.arguments(arguments, depth=50, width=1.0, sk_ratio=0.0, epochs=100.0)
    c = default.get_config()
    c.data.update(
        name="imagenet2012", eval_split="validation", num_examples=1281167, num_classes=1000
    )
    # A TPU multiplies float32 in bfloat16 anyway; storing bfloat16 halves memory and traffic.
    c.model.update(
        depth=given["depth"],
        width=given["width"],
        sk_ratio=given["sk_ratio"],
        dtype="bfloat16",
    )
    c.train.epochs = given["epochs"]
    c.eval.every_epochs = 10.0
    c.checkpoint.every_epochs = 1.0
    return c

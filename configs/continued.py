"""Continued pretraining on your own images, from the weights of another run.

Command:  simclr-train --config=configs/continued.py:depth=50 --workdir=RUN \
            --config.data.dir=IMAGES --config.init.run=PRETRAINED
Hardware: one GPU for some ten thousand images. Time not measured yet.
Result:   depends on the images. Compare `simclr-eval --config=configs/eval/knn.py` of RUN and of
          PRETRAINED on your images if there are labels, and the held-out loss of both if not.

The arguments are those of the network of PRETRAINED. The temperature and the rate are the authors'
for small batches. A network without an imported projection head gets a new one, and a line says so.
"""

from ml_collections import ConfigDict

from simclr_jax.config import default


def get_config(arguments: str | None = None) -> ConfigDict:
    """The config of continued pretraining.

    Args:
      arguments: Some of depth, width, sk_ratio and head_layers, the network of the pretrained run,
        image_size in pixels and batch (images), such as 'depth=18,image_size=128'.

    Raises:
      ValueError: An argument is unknown, or has another type.
    """
    given = default.arguments(
        arguments, depth=50, width=1.0, sk_ratio=0.0, head_layers=3, image_size=224, batch=128
    )
    c = default.get_config()
    c.data.update(name="folder", image_size=given["image_size"])
    c.model.update({key: given[key] for key in ("depth", "width", "sk_ratio", "head_layers")})
    c.loss.temperature = 0.2
    c.optim.update(lr=0.075, lr_scaling="sqrt", warmup_epochs=5.0)
    c.train.update(batch_size=given["batch"], epochs=50.0)
    c.eval.every_epochs = 5.0
    c.checkpoint.every_epochs = 5.0
    c.log.every_steps = 10
    return c

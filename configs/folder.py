"""Your own images: a folder, labelled by its subfolders or not at all.

Command:  simclr-train --config=configs/folder.py --workdir=RUN --config.data.dir=IMAGES
          simclr-train --config=configs/folder.py:size=small --workdir=RUN --config.data.dir=IMAGES
          simclr-train --config=configs/folder.py:hours=1 --workdir=RUN --config.data.dir=IMAGES
Hardware: one GPU for some ten thousand images; more GPUs are used without any setting. Time
          not measured yet. With size=small a laptop: a thousand images in 387 s on 2 CPU cores.
          With hours=1 whatever is there: the run chooses its sizes for it when it begins, so that
          it ends after about an hour; docs/images.md says how.
Result:   depends on the images. Watch the held-out contrastive loss (eval loss), and compare
          `simclr-eval --config=configs/eval/knn.py --run=RUN` with and without --untrained if
          there are labels. docs/results.md has both of a thousand photographs with size=small.
"""

import math

from ml_collections import ConfigDict

from simclr_jax.config import default, wish


def get_config(arguments: str | None = None) -> ConfigDict:
    """The config of an image folder.

    Args:
      arguments: 'size=default', 'size=small' or 'hours=…', a number above 0; None: the default.

    Raises:
      ValueError: An argument is unknown, or its value is not one of these.
    """
    given = default.arguments(arguments, size="", hours=math.inf)
    size, hours = given["size"], given["hours"]
    if size not in ("", "default", "small"):
        raise ValueError(f"'size={size}': must be default or small")
    if not hours > 0:
        raise ValueError(f"'hours={hours:g}': must be above 0")
    if size and hours < math.inf:
        raise ValueError(
            f"'size={size},hours={hours:g}': only one of them, for hours chooses sizes"
        )
    c = default.get_config()
    c.data.update(name="folder", image_size=128)
    c.model.update(depth=18)
    # With these the loss fell from the first steps on 5,000 photographs; with the authors' 0.2 and
    # 0.075·√B it fell later.
    c.loss.temperature = 0.5
    c.optim.update(lr=0.2, lr_scaling="sqrt")
    c.train.update(batch_size=256, epochs=200.0)
    # A share of the run, so that a short one is not all warm-up.
    c.optim.warmup_epochs = 0.05 * c.train.get_ref("epochs")
    c.eval.every_epochs = 10.0
    c.checkpoint.every_epochs = 10.0
    c.log.every_steps = 10
    if size == "small":
        c.data.image_size = 64
        c.model.width = 0.25
        c.loss.temperature = 0.2
        c.optim.lr = 0.3
        c.optim.warmup_epochs = c.train.get_ref("epochs") / 12
        c.train.update(batch_size=64, epochs=60.0)
    if hours < math.inf:
        wish.leave_open(c, hours)
    return c

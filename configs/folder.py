"""Your own images: a folder, labelled by its subfolders or not at all.

Command:  simclr-train --config=configs/folder.py --workdir=RUN --config.data.dir=IMAGES
          simclr-train --config=configs/folder.py:size=small --workdir=RUN --config.data.dir=IMAGES
Hardware: one GPU for some ten thousand images; more GPUs are used without any setting. Time
          not measured yet. With size=small a laptop: a thousand images in 935 s on 2 CPU cores
          that were busy with other work.
Result:   depends on the images. Watch the held-out contrastive loss (eval loss), and compare
          `simclr-eval --config=configs/eval/knn.py --run=RUN` with and without --untrained if
          there are labels. docs/results.md has both of a thousand photographs with size=small.
"""

from ml_collections import ConfigDict

from simclr_jax.config import default


def get_config(arguments: str | None = None) -> ConfigDict:
    """The config of an image folder.

    Args:
      arguments: 'size=default' or 'size=small'; None: the default.

    Raises:
      ValueError: An argument is unknown.
    """
    size = default.arguments(arguments, size="default")["size"]
    if size not in ("default", "small"):
        raise ValueError(f"'size={size}': must be default or small")
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
    return c

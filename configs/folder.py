"""Your own images: a folder, labelled by its subfolders or not at all.

Command:  simclr-train --config=configs/folder.py --workdir=RUN --config.data.dir=IMAGES
Hardware: one GPU for some ten thousand images; more GPUs are used without any setting. Time
          not measured yet.
Result:   depends on the images. Watch the held-out contrastive loss (eval loss), and compare
          `simclr-eval --config=configs/eval/knn.py --run=RUN` with and without --untrained if
          there are labels.
"""

from ml_collections import ConfigDict

from simclr_jax.config import default


def get_config() -> ConfigDict:
    """The config of an image folder."""
    c = default.get_config()
    c.data.update(name="folder", image_size=128)
    c.model.update(depth=18)
    # With these the loss fell from the first steps on 5,000 photographs; with the authors' 0.2 and
    # 0.075·√B it fell later.
    c.loss.temperature = 0.5
    c.optim.update(lr=0.2, lr_scaling="sqrt")
    c.train.update(batch_size=256, epochs=200.0)
    c.eval.every_epochs = 10.0
    c.checkpoint.every_epochs = 10.0
    c.log.every_steps = 10
    return c

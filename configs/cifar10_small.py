"""A fifth of CIFAR-10 at 16 px with a narrow ResNet-18: minutes on one core.

Command:  simclr-train --config=configs/cifar10_small.py --workdir=RUN
Hardware: one or two CPU cores.
Result:   docs/paper.md has it, as the setting of the small form of every study.
"""

from ml_collections import ConfigDict

from simclr_jax.config import shipped


def get_config() -> ConfigDict:
    """The config of a part of CIFAR-10 for studies on two cores."""
    c = shipped.load("cifar10")
    c.data.update(
        train_split="train[:10000]", eval_split="test[:5000]", image_size=16, num_examples=10000
    )
    c.model.update(width=0.125, head_layers=2, head_dim=64)
    c.loss.temperature = 0.2
    c.optim.update(lr=1.0, lr_scaling="linear", warmup_epochs=1.0)
    c.train.update(batch_size=128, epochs=5.0)
    c.eval.every_epochs = c.checkpoint.every_epochs = 5.0
    c.log.every_steps = 10
    c.log.tensorboard = False
    return c

"""The input of a run, made from the keys of its config: the order, the views and the batches."""

import jax
import numpy as np
from ml_collections import ConfigDict

from simclr_jax.augment.device import Late, in_batch, late_of, numbers_of
from simclr_jax.augment.draws import Views, one_a_view
from simclr_jax.augment.keys import image_keys
from simclr_jax.augment.policies import with_policy
from simclr_jax.config import constraints
from simclr_jax.data import pipeline, stream
from simclr_jax.data.order import Order, Picked
from simclr_jax.data.readable import Readable


def order(config: ConfigDict, examples: int, batch_size: int | None = None) -> Order:
    """The order of `examples` images in batches of batch_size (None: train.batch_size)."""
    return Order(
        examples,
        batch_size or config.train.batch_size,
        seed=config.seed,
        block=config.data.shuffle_block,
        window=config.data.shuffle_window,
    )


def views(config: ConfigDict) -> Views:
    """The settings of the augmented views of an image.

    Where the config does not say on what the colour distortion is, that is the device, unless it is
    the host's own CPU.
    """
    by_default = "host" if jax.default_backend() == "cpu" else "device"
    lists = one_a_view(config.augment.ops, constraints.count_views(config))
    policy = config.augment.policy
    return Views(
        size=config.data.image_size,
        ops=lists if policy is None else tuple(with_policy(ops, policy) for ops in lists),
        strength=config.augment.strength,
        brightness=config.augment.brightness,
        crop_area=tuple(config.augment.crop_area),
        colour_on=config.augment.colour_on or by_default,
        blur_on=config.augment.blur_on,
        channels=config.data.channels,
    )


def late(config: ConfigDict) -> Late:
    """The augmentations that the train step applies."""
    return late_of(views(config), "device")


def device_numbers(config: ConfigDict, n: int) -> dict[str, np.ndarray]:
    """The random numbers of the augmentations that the train step applies, of n images.

    They are those of the first images in the first epoch, by their names in a batch.
    """
    of, index = views(config), np.arange(n)
    of_views = [image_keys(config.seed, 0 * index, index, view) for view in range(of.count)]
    return in_batch(numbers_of(late(config), of_views, of), (n, of.count))


def train_batches(
    config: ConfigDict,
    source: Readable,
    *,
    rows: np.ndarray,
    start_step: int,
    stop_step: int,
    in_order: Order | Picked | None = None,
) -> stream.Batches:
    """The batches of augmented views; see `pipeline.train_batches` for the arguments.

    The order is that of the run unless another one is given.
    """
    return pipeline.train_batches(
        source,
        in_order or order(config, len(source)),
        views(config),
        rows=rows,
        start_step=start_step,
        stop_step=stop_step,
        transfer_dtype=config.data.transfer_dtype,
    )

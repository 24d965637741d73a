"""Warnings at the start of a run, of settings that do not fit its images or its length."""

import contextlib
import logging
import os
from collections.abc import Iterable

import jax
from ml_collections import ConfigDict, FrozenConfigDict

from simclr_jax import processes
from simclr_jax.augment.draws import Views
from simclr_jax.config import inputs
from simclr_jax.config.parts import Schedule
from simclr_jax.data import images
from simclr_jax.data.readable import Readable
from simclr_jax.data.source import Source, evenly_spaced

SAMPLE = 16  # The largest number of images whose size is looked at.

_log = logging.getLogger(__name__)


def warn(config: FrozenConfigDict, schedule: Schedule, train: Readable) -> None:
    """Logs the warnings that a run's config, its schedule and its training images give."""
    warn_of_the_warmup(schedule)
    warn_of_what_is_on_the_host(config.augment, inputs.views(config))
    warn_of_frozen_noise(config.train.frozen, config.init.run)
    warn_of_small_images(train.source, config.data.image_size, config.data.channels)
    if lost := left_out(inputs.views(config)):
        processes.say(f"config.data.channels={config.data.channels}: {lost}")


def warn_of_frozen_noise(frozen: str, init_run: str | None) -> None:
    """Logs a warning, in process 0, where what is frozen has not been trained before.

    Args:
      frozen: The last part of the encoder that is frozen, or 'none'.
      init_run: The run that the weights are taken from; None: they are drawn by the seed.
    """
    if frozen != "none" and init_run is None and processes.is_primary():
        _log.warning(
            "train.frozen=%s keeps weights that the seed has drawn, since init.run names no run "
            "to take trained ones from",
            frozen,
        )


def warn_of_the_warmup(schedule: Schedule) -> None:
    """Logs a warning where most of a run is its warm-up."""
    if 2 * schedule.warmup_steps > schedule.total_steps:
        _log.warning(
            "of the run's %d steps the first %d are its warm-up; see optim.warmup_epochs",
            schedule.total_steps,
            min(schedule.warmup_steps, schedule.total_steps),
        )


def warn_of_what_is_on_the_host(augment: ConfigDict, views: Views) -> None:
    """Logs a warning, in process 0, where the device cannot apply what the config wants it to.

    Args:
      augment: The config's section of the augmentation.
      views: The settings of the augmentation.
    """
    asked = {
        "blur_on": ("blur",) if augment.blur_on == "device" else (),
        "colour_on": ("jitter", "grey") if augment.colour_on == "device" else (),
    }
    for key, names in asked.items():
        for name in names if processes.is_primary() else ():
            moved = [
                str(view + 1)
                for view in range(views.count)
                if name in views.applied(view) and name not in views.places(view).device
            ]
            if moved:
                _log.warning(
                    "%s of view %s is applied on the host whatever augment.%s=device says, for an "
                    "operation on the host comes after it in augment.ops",
                    name,
                    " and ".join(moved),
                    key,
                )


def left_out(views: Views) -> str:
    """What of the augmentation images cannot have that are not of red, green and blue, in words.

    Args:
      views: The settings of the augmentation.
    """
    if views.channels == 3 or views.strength == 0:
        return ""
    ops = {name for names in views.ops for name in names}
    lost = ["hue and saturation of the jitter"] if "jitter" in ops else []
    lost += ["grey"] if "grey" in ops else []
    return f"left out, as of red, green and blue: {', '.join(lost)}" if lost else ""


def warn_of_waiting(config: FrozenConfigDict, share: float) -> None:
    """Logs that the devices of this process wait for their input, and what makes it faster.

    Args:
      config: The config of the run.
      share: The share of the time of training in which they waited, 0 to 1.
    """
    _log.warning(
        "for %.0f%% of the time the devices wait for their input, which the %d cores of this host "
        "make; what makes it faster: %s",
        100 * share,
        os.cpu_count(),
        ", ".join(faster_input(config)),
    )


def faster_input(config: ConfigDict) -> list[str]:
    """What makes the input of a run faster, keys first."""
    views, faster = inputs.views(config), []
    if jax.default_backend() != "cpu":
        on_host = {op for view in range(views.count) for op in views.places(view).host}
        moved = {"colour_on": {"flip", "jitter", "grey"}, "blur_on": {"blur"}}
        faster = [
            f"augment.{key}=device"
            for key, ops in moved.items()
            if getattr(views, key) == "host" and on_host & ops
        ]
    return [*faster, "more cores", "files of smaller images"]


def faster_step(config: ConfigDict) -> list[str]:
    """What makes the train step of a run faster, keys first."""
    keys = {
        "model.dtype=bfloat16": config.model.dtype == "float32" and jax.default_backend() != "cpu",
        "model.remat=none": config.model.remat != "none",
        "train.microbatches=1": config.train.microbatches > 1,
        "train.deterministic=false": config.train.deterministic and jax.default_backend() == "gpu",
    }
    found = [key for key, slows in keys.items() if slows]
    return [*found, "a smaller data.image_size, model.width or model.depth", "more devices"]


def warn_of_small_images(source: Source, image_size: int, channels: int) -> None:
    """Logs a warning, in process 0, where a quarter of the images or more is below image_size.

    Of at most `SAMPLE` images, evenly spaced, the headers are read. One that cannot be read is left
    to the training.

    Args:
      source: The images to train on.
      image_size: The side of the views, in pixels.
      channels: The number of channels of the images.
    """
    if not processes.is_primary():
        return
    sides = shorter_sides(source.load(evenly_spaced(source, SAMPLE))[0], channels)
    small = [side for side in sides if side < image_size]
    if small and 4 * len(small) >= len(sides):
        _log.warning(
            "%d of %d images that were looked at are smaller than data.image_size=%d (the shortest "
            "side has %d pixels): their views are enlarged",
            len(small),
            len(sides),
            image_size,
            min(small),
        )


def shorter_sides(encoded: Iterable[bytes | str], channels: int) -> list[int]:
    """The shorter side of each image in pixels, without those whose header cannot be read.

    Args:
      encoded: Encoded images; a text for one that could not be loaded.
      channels: The number of channels of the images.
    """
    sides = []
    for data in encoded:
        if isinstance(data, bytes):
            with contextlib.suppress(ValueError):
                sides.append(min(images.size(data, channels)))
    return sides

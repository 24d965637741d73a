"""What every config key may be, and which keys constrain each other.

Every error names the key, its value and what is allowed, before anything expensive starts.
"""

import math
import re
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from simclr_jax import config as configs
from simclr_jax.augment.draws import BRIGHTNESS, OPS
from simclr_jax.configs import default
from simclr_jax.errors import UserError
from simclr_jax.losses import LOSSES
from simclr_jax.models.heads import HEADS
from simclr_jax.models.resnet import BLOCKS, REMAT, STEMS, stem_for
from simclr_jax.optim import OPTIMIZERS

Rule = tuple[Callable[[Any], bool], str]


def _one_of(*allowed: Any) -> Rule:
    return lambda value: value in allowed, f"one of {', '.join(map(str, allowed))}"


def _number(low: float, high: float = math.inf, *, above: bool = False) -> Rule:
    text = f"{'above' if above else 'at least'} {low}"
    if high < math.inf:
        text = f"{text} and at most {high}"

    def holds(value: Any) -> bool:
        return math.isfinite(value) and (value > low if above else value >= low) and value <= high

    return holds, text


def _span(value: Any) -> bool:
    return len(value) == 2 and 0 < value[0] <= value[1] <= 1


_ABOVE_0 = _number(0, above=True)
_AT_LEAST_0 = _number(0)
_AT_LEAST_1 = _number(1)

# What each key may be; a key that is None (a placeholder left open) is not checked.
RULES: dict[str, Rule] = {
    "seed": _number(0, 2**31 - 1),
    "data.name": (bool, "a TFDS name, 'folder' or 'digits'"),
    "data.held_out": (lambda value: 0 < value < 1, "a fraction between 0 and 1"),
    "data.image_size": _number(8, 4096),
    "data.num_classes": _AT_LEAST_0,
    "data.num_examples": _AT_LEAST_1,
    "data.cache_bytes": _AT_LEAST_0,
    "data.shuffle_block": _number(1, 2**20),
    "data.shuffle_window": _number(1, 2**20),
    "data.transfer_dtype": _one_of("uint8", "float32"),
    "data.on_bad_image": _one_of("replace", "error"),
    "augment.ops": (
        lambda value: set(value) <= set(OPS) and len(set(value)) == len(value),
        f"a tuple of {', '.join(OPS)}, each at most once",
    ),
    "augment.strength": _number(0, 5),
    "augment.brightness": _one_of(*BRIGHTNESS),
    "augment.crop_area": (_span, "two fractions of the image, 0 < smallest <= largest <= 1"),
    "augment.blur_on": _one_of("device", "host"),
    "model.depth": _one_of(*BLOCKS),
    "model.width": _number(1 / 16, 16),
    "model.sk_ratio": _number(0, 1),
    "model.se_ratio": _number(0, 1),
    "model.stem": _one_of(*STEMS),
    "model.dtype": _one_of("float32", "bfloat16"),
    "model.remat": _one_of(*REMAT),
    "model.head": _one_of(*HEADS),
    "model.head_layers": _number(2, 16),
    "model.head_dim": _AT_LEAST_1,
    "loss.name": _one_of(*LOSSES),
    "loss.temperature": _ABOVE_0,
    "loss.block_rows": _number(2),
    "optim.name": _one_of(*OPTIMIZERS),
    "optim.lr": _AT_LEAST_0,
    "optim.lr_scaling": _one_of("linear", "sqrt", "none"),
    "optim.weight_decay": _AT_LEAST_0,
    "optim.warmup_epochs": _number(0, 1e6),
    "train.batch_size": _number(2, 2**20),
    "train.epochs": _number(0, 1e6, above=True),
    "train.steps": _number(1, 2**31 - 1),
    "train.microbatches": _AT_LEAST_1,
    "train.on_nonfinite": _one_of("stop", "skip"),
    "train.max_skipped_updates": _AT_LEAST_1,
    "train.microbatch_norm": _one_of("per_microbatch", "running"),
    "eval.every_epochs": _ABOVE_0,
    "eval.every_steps": _AT_LEAST_1,
    "eval.batch_size": _AT_LEAST_1,
    "checkpoint.every_epochs": _ABOVE_0,
    "checkpoint.every_steps": _AT_LEAST_1,
    "checkpoint.keep": _AT_LEAST_1,
    "log.every_steps": _AT_LEAST_1,
    "features.layer": (
        lambda value: re.fullmatch(r"pixels|h|z|head[1-9]\d*", value) is not None,
        "pixels, h, headK (after hidden layer K of the head) or z",
    ),
    "features.batch_size": _AT_LEAST_1,
    "linear.lr": _ABOVE_0,
    "linear.weight_decay": _AT_LEAST_0,
    "linear.batch_size": _AT_LEAST_1,
    "linear.epochs": _ABOVE_0,
    "linear.labels_per_class": _AT_LEAST_1,
    "linear.draws": _AT_LEAST_1,
    "linear.c": _ABOVE_0,
    "embed.split": _one_of("train", "eval", "all"),
    "knn.k": _AT_LEAST_1,
    "knn.temperature": _ABOVE_0,
}


def wrong(key: str, value: Any, allowed: str) -> UserError:
    """The error for a value: names the key, the value, and what is allowed."""
    return UserError(f"config.{key}={value!r}: must be {allowed}")


def check(config: ConfigDict, *, devices: int) -> None:
    """Checks every key by itself.

    Args:
      config: of a training run or an evaluation.
      devices: that batches are split over.

    Raises:
      UserError: names the key, the value and what is allowed.
    """
    for key in configs.keys(config):
        value = configs.get(config, key)
        if value is not None and key in RULES and not _holds(key, value):
            raise wrong(key, value, RULES[key][1])
    split = ["train.batch_size", "eval.batch_size", "features.batch_size"]
    if configs.get(config, "linear.augment"):
        split.append("linear.batch_size")
    for key in split:
        value = configs.get(config, key)
        if value is not None and value % devices:
            raise wrong(key, value, f"a multiple of the {devices} devices")


def _holds(key: str, value: Any) -> bool:
    try:
        return bool(RULES[key][0](value))
    except (TypeError, ValueError, OverflowError):  # a tuple of something else, a huge integer
        return False


def check_run(config: ConfigDict, *, devices: int) -> None:
    """`check`, then the keys of a training run that constrain each other."""
    missing = configs.keys(default.get_config()).keys() - configs.keys(config).keys()
    if missing:
        raise UserError(
            f"--config: lacks {', '.join(sorted(missing))}; is it a training run's? "
            "Begin it with simclr_jax.configs.default.get_config()"
        )
    check(config, devices=devices)
    if config.data.name is None:
        raise wrong("data.name", None, RULES["data.name"][1])
    batch_size, microbatches = config.train.batch_size, config.train.microbatches
    if batch_size % (devices * microbatches):
        raise wrong(
            "train.microbatches",
            microbatches,
            f"a divisor of the {batch_size // devices} images of a device's share of the batch",
        )
    model, size = config.model, config.data.image_size
    if stem_for(model.stem, size) == "imagenet" and size < 32:
        raise wrong("data.image_size", size, "at least 32 for the imagenet stem")

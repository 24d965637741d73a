"""The values that each config key may have.

Every error names the key, its value and what is allowed, before anything expensive starts.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from simclr_jax.augment.draws import BRIGHTNESS, ON, OPS, POLICIES
from simclr_jax.config.overrides import get, keys
from simclr_jax.errors import UserError
from simclr_jax.losses import LOSSES, MINING
from simclr_jax.models.heads import HEADS
from simclr_jax.models.resnet import BLOCKS, FROZEN, REMAT, STEMS
from simclr_jax.optim import OPTIMIZERS
from simclr_jax.store.tracker import TRACKERS

# The keys of the section "data" that choose labels, of which one at most is given.
LABELS = ("label_fraction", "labels_per_class", "label_list")
OBJECTIVES = ("contrastive", "supervised", "distill")
FREE, FIXED, ASK = "free", "fixed", "ask"  # The values of Rule.on_resume.


class Rule(NamedTuple):
    """The rule for the values of a key.

    Attributes:
      holds: A function that says whether a value is allowed; it is not asked about None.
      allowed: The allowed values in words that follow "must be".
      on_resume: Whether a continued run may have another value. FREE: yes, for it changes nothing
        that is computed. FIXED: no, for the network, the optimizer's state or the order of the
        images depends on it. ASK: yes, with --allow_config_change.
    """

    holds: Callable[[Any], bool]
    allowed: str
    on_resume: str = FREE


def one_of(*allowed: Any, on_resume: str = FREE) -> Rule:
    """The rule that a value is one of `allowed`.

    >>> one_of("device", "host").allowed
    'one of device, host'
    """
    text = f"one of {', '.join(map(str, allowed))}"
    return Rule(lambda value: value in allowed, text, on_resume)


def number(
    low: float, high: float = math.inf, *, above: bool = False, on_resume: str = FREE
) -> Rule:
    """The rule that a value is a finite number from `low` (with `above`: above it) to `high`.

    >>> number(0, 5, above=True).holds(0)
    False
    """
    text = f"{'above' if above else 'at least'} {low}"
    if high < math.inf:
        text = f"{text} and at most {high}"

    def holds(value: Any) -> bool:
        known = not isinstance(value, bool) and math.isfinite(value)
        return known and (value > low if above else value >= low) and value <= high

    return Rule(holds, text, on_resume)


def anything(allowed: str, on_resume: str = FREE) -> Rule:
    """The rule that a value has the key's type; whether it exists is found when it is opened.

    Args:
      allowed: The allowed values in words.
      on_resume: See `Rule`.
    """
    return Rule(lambda value: True, allowed, on_resume)


def above(low: float, on_resume: str = FREE) -> Rule:
    """The rule that a value is a finite number above `low`."""
    return number(low, above=True, on_resume=on_resume)


def at_least(low: float, on_resume: str = FREE) -> Rule:
    """The rule that a value is a finite number from `low` on."""
    return number(low, on_resume=on_resume)


def whole(low: int) -> Rule:
    """The rule that a value is an integer from `low` on, also within a tuple.

    >>> [whole(1).holds(value) for value in (200, 0, True, 2.0)]
    [True, False, False, False]
    """
    return Rule(lambda value: type(value) is int and value >= low, f"a whole number from {low} on")


def values_of(value: Any) -> tuple[Any, ...]:
    """The values of a key that takes one value or a tuple of them.

    >>> values_of(200), values_of((1, 5))
    ((200,), (1, 5))
    """
    return value if isinstance(value, tuple) else (value,)


def some(rule: Rule) -> Rule:
    """The rule that a value is as `rule` says, or a tuple of different ones that are.

    >>> [some(above(0)).holds(value) for value in (0.1, (0.1, 1), (0.1, 0.1), (), (0.1, 0))]
    [True, True, False, False, False]
    """

    def holds(value: Any) -> bool:
        values = values_of(value)
        return all(map(rule.holds, values)) and len(set(values)) == len(values) > 0

    return Rule(holds, f"{rule.allowed}, or several different ones such as 1,5,10")


def _is_area(value: Any) -> bool:
    """Whether a value is the smallest and the largest fraction of an area."""
    return len(value) == 2 and 0 < value[0] <= value[1] <= 1


def _is_range(value: Any) -> bool:
    """Whether a value is two different finite numbers."""
    return len(value) == 2 and all(map(math.isfinite, value)) and value[0] != value[1]


def _are_ops(value: Any) -> bool:
    """Whether a value is a list of operations, or several such lists."""
    lists = value if value and not isinstance(value[0], str) else (value,)
    return all(
        isinstance(ops, tuple)
        and set(ops) <= set(OPS)
        and len(set(ops)) == len(ops)
        and "shared_crop" not in ops[1:]
        for ops in lists
    )


# The rule that a value is the two ends of a range of positive numbers.
RANGE = Rule(
    lambda value: len(value) == 2 and 0 < value[0] <= value[1] < math.inf,
    "two numbers, 0 < smallest <= largest",
)

# The rules of a training run's keys, in the order of the defaults.
RUN: dict[str, Rule] = {
    "seed": number(0, 2**31 - 1, on_resume=FIXED),
    "data.name": Rule(bool, "a TFDS name, 'folder' or 'digits'", FIXED),
    "data.dir": anything("a folder"),
    "data.train_split": anything("a split of the dataset", FIXED),
    "data.eval_split": anything("a split of the dataset", ASK),
    "data.image_key": anything("a feature of the TFDS dataset", FIXED),
    "data.label_key": anything("a feature of the TFDS dataset", ASK),
    "data.held_out": Rule(lambda value: 0 < value < 1, "a fraction between 0 and 1", FIXED),
    "data.label_fraction": Rule(lambda value: 0 < value <= 1, "above 0 and at most 1", FIXED),
    "data.labels_per_class": at_least(1, FIXED),
    "data.label_list": anything("a file of the names of images", FIXED),
    "data.label_seed": number(0, 2**31 - 1, on_resume=FIXED),
    "data.image_size": number(8, 4096, on_resume=FIXED),
    "data.num_examples": at_least(1, FIXED),
    "data.num_classes": at_least(0, FIXED),
    "data.cache_bytes": at_least(0),
    "data.index_dir": anything("a folder"),
    "data.shuffle_block": number(1, 2**20, on_resume=FIXED),
    "data.shuffle_window": number(1, 2**20, on_resume=FIXED),
    "data.transfer_dtype": one_of("uint8", "float32", on_resume=ASK),
    "data.channels": number(1, 512, on_resume=FIXED),
    "data.value_range": Rule(_is_range, "two numbers, those of black and of white", ASK),
    "data.views": number(1, 255, on_resume=ASK),
    "data.on_bad_image": one_of("replace", "error"),
    "augment.ops": Rule(
        _are_ops,
        f"a tuple of {', '.join(OPS)}, each at most once and shared_crop only as the first, or one "
        "such tuple a view",
        ASK,
    ),
    "augment.strength": number(0, 5, on_resume=ASK),
    "augment.brightness": one_of(*BRIGHTNESS, on_resume=ASK),
    "augment.crop_area": Rule(
        _is_area, "two fractions of the image, 0 < smallest <= largest <= 1", ASK
    ),
    "augment.policy": one_of(*POLICIES, on_resume=ASK),
    "augment.colour_on": one_of(*ON, on_resume=ASK),
    "augment.blur_on": one_of(*ON, on_resume=ASK),
    "objective.name": one_of(*OBJECTIVES, on_resume=FIXED),
    "objective.teacher": anything("the folder of a run with a classifier"),
    "objective.classes": at_least(2, FIXED),
    "objective.temperature": above(0, ASK),
    "objective.label_weight": number(0, 1, on_resume=ASK),
    "init.run": anything("the folder of a run", FIXED),
    "init.step": at_least(0, FIXED),
    "model.depth": one_of(*BLOCKS, on_resume=FIXED),
    "model.width": number(1 / 16, 16, on_resume=FIXED),
    "model.sk_ratio": number(0, 1, on_resume=FIXED),
    "model.se_ratio": number(0, 1, on_resume=FIXED),
    "model.stem": one_of(*STEMS, on_resume=FIXED),
    "model.dtype": one_of("float32", "bfloat16", on_resume=ASK),
    "model.remat": one_of(*REMAT),
    "model.head": one_of(*HEADS, on_resume=FIXED),
    "model.head_layers": number(2, 16, on_resume=FIXED),
    "model.head_dim": at_least(1, FIXED),
    "model.classifier_layer": Rule(
        lambda value: re.fullmatch(r"h|head[1-9]\d?", value) is not None,
        "h or headK, with K the number of a layer of the head",
        FIXED,
    ),
    "loss.name": one_of(*LOSSES, on_resume=ASK),
    "loss.mining": one_of(*MINING, on_resume=ASK),
    "loss.margin": at_least(0, ASK),
    "loss.temperature": above(0, ASK),
    "loss.normalize": anything("true or false", ASK),
    "loss.block_rows": at_least(2),
    "optim.name": one_of(*OPTIMIZERS, on_resume=FIXED),
    "optim.lr": at_least(0, ASK),
    "optim.lr_scaling": one_of("linear", "sqrt", "none", on_resume=ASK),
    "optim.weight_decay": at_least(0, ASK),
    "optim.warmup_epochs": number(0, 1e6, on_resume=ASK),
    "optim.shard_state": anything("true or false"),
    "train.batch_size": number(2, 2**20, on_resume=FIXED),
    "train.epochs": number(0, 1e6, above=True, on_resume=ASK),
    "train.steps": number(1, 2**31 - 1, on_resume=ASK),
    "train.hours": above(0, FIXED),
    "train.microbatches": at_least(1, ASK),
    "train.frozen": one_of(*FROZEN, on_resume=FIXED),
    "train.on_nonfinite": one_of("stop", "skip"),
    "train.max_skipped_updates": at_least(1),
    "train.deterministic": anything("true or false"),
    "train.hang_factor": at_least(1),
    "train.on_hang": one_of("report", "exit", "ignore"),
    "train.profile_steps": Rule(
        lambda value: (
            len(value) == 2 and whole(1).holds(value[0]) and whole(value[0]).holds(value[1])
        ),
        "None, or the first and the last step as whole numbers from 1 on, in ascending order",
    ),
    "train.microbatch_norm": one_of("per_microbatch", "running", on_resume=ASK),
    "eval.every_epochs": above(0),
    "eval.every_steps": at_least(1),
    "eval.batch_size": at_least(1),
    "eval.knn_images": at_least(0),
    "checkpoint.every_epochs": above(0),
    "checkpoint.every_steps": at_least(1),
    "checkpoint.keep": at_least(1),
    "log.every_steps": at_least(1),
    "log.measures_every_steps": at_least(1),
    "log.tensorboard": anything("true or false"),
    "log.tracker": one_of(*TRACKERS),
    "log.tracker_project": Rule(bool, "the name of a project"),
}

# The rules of the keys that every evaluation has. Each protocol's module adds its section's.
EVALUATION: dict[str, Rule] = {
    "protocol": anything("the name of a protocol"),
    "seed": RUN["seed"],
    "data.name": RUN["data.name"],
    "data.dir": RUN["data.dir"],
    "data.train_split": RUN["data.train_split"],
    "data.eval_split": RUN["data.eval_split"],
    "data.validation_split": anything("a split of the dataset"),
    "data.image_key": RUN["data.image_key"],
    "data.label_key": RUN["data.label_key"],
    "data.num_classes": RUN["data.num_classes"],
    "data.label_fraction": RUN["data.label_fraction"],
    "data.labels_per_class": RUN["data.labels_per_class"],
    "data.label_list": RUN["data.label_list"],
    "data.label_seed": RUN["data.label_seed"],
    "data.value_range": RUN["data.value_range"],
    "data.image_size": RUN["data.image_size"],
    "features.layer": Rule(
        lambda value: re.fullmatch(r"pixels|h|z|logits|head[1-9]\d*", value) is not None,
        "pixels, h, headK (after hidden layer K of the head), z or logits (of the classifier)",
    ),
    "features.batch_size": at_least(1),
    "features.crop": number(0, 1, above=True),
    "features.dtype": one_of("float32", "float16"),
    "features.keep": at_least(0),
}


def wrong(key: str, value: Any, allowed: str) -> UserError:
    """The error for a value that is not allowed.

    >>> print(wrong("checkpoint.keep", 0, "at least 1"))
    config.checkpoint.keep=0: must be at least 1

    Args:
      key: The dotted key.
      value: The value.
      allowed: The allowed values in words.
    """
    return UserError(f"config.{key}={value!r}: must be {allowed}")


def check(config: ConfigDict, rules: Mapping[str, Rule], *, devices: int) -> None:
    """Checks the value of each key, and that batches can be split over the devices.

    Args:
      config: The config of a training run or an evaluation.
      rules: The rules by dotted key; a key without one, or with the value None, is not checked.
      devices: The number of devices.

    Raises:
      UserError: A value is not allowed; the message names the key, the value and what is allowed.
    """
    for key in keys(config):
        value = get(config, key)
        if value is not None and key in rules and not holds(rules[key], value):
            raise wrong(key, value, rules[key].allowed)
    _check_labels(config)
    split = ["train.batch_size", "eval.batch_size", "features.batch_size"]
    if get(config, "linear.augment"):
        split.append("linear.batch_size")
    if get(config, "transfer.method") == "finetune":
        split.append("transfer.batch_size")
    for key in split:
        value = get(config, key)
        if value is not None and value % devices:
            raise wrong(key, value, f"a multiple of the {devices} devices")


def _check_labels(config: ConfigDict) -> None:
    """Raises UserError where labels are chosen in two ways, or among labels that are not used."""
    given = [f"data.{key}" for key in LABELS if get(config, f"data.{key}") is not None]
    if given and config.data.num_classes == 0:
        raise wrong(
            "data.num_classes", 0, f"another number, or None, for {given[0]} chooses labels"
        )
    if given[1:]:
        raise wrong(given[1], get(config, given[1]), f"None where {given[0]} chooses the labels")


def holds(rule: Rule, value: Any) -> bool:
    """Whether a value is allowed; False as well for one that the rule has no answer for."""
    try:
        return bool(rule.holds(value))
    except (TypeError, ValueError, OverflowError, LookupError):
        # Of a tuple of other types or of another length, or of a huge integer.
        return False

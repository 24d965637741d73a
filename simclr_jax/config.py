"""Configs: load one with its overrides, check it, and write what a run was made of.

Every error names the key, its value and what is allowed, before anything expensive starts.
"""

import difflib
import json
import math
import platform
import re
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from absl import flags
from etils import epath
from ml_collections import ConfigDict, FrozenConfigDict, config_flags

from simclr_jax.data.augment import BRIGHTNESS, OPS
from simclr_jax.errors import UserError
from simclr_jax.losses import LOSSES
from simclr_jax.models.heads import HEADS
from simclr_jax.models.resnet import BLOCKS
from simclr_jax.optim import OPTIMIZERS

Rule = tuple[Callable[[Any], bool], str]


def load(argv: Sequence[str]) -> ConfigDict:
    """Loads `--config=FILE[:ARGUMENTS]` with its `--config.key=value` overrides.

    Args:
      argv: these flags alone, without the program's name.

    Raises:
      UserError: the file is missing or fails, a key is unknown, or a value has the wrong type.
    """
    given = [value for flag, value in map(_split, argv) if flag == "config"]
    if not given or not given[-1]:
        raise UserError("--config: required, a file such as configs/digits.py")
    path = given[-1].split(":", 1)[0]
    if not Path(path).is_file():
        raise UserError(f"--config={given[-1]}: no such file {path!r}")
    overrides = [arg for arg in argv if _split(arg)[0].startswith("config.")]
    try:
        config = _parse([f"--config={given[-1]}"])
        config.lock()
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[-1]
        if not isinstance(error, flags.Error):  # whose last line names the error it wraps
            reason = f"{type(error).__name__}: {reason}"
        raise UserError(f"--config={given[-1]}: {reason}") from error
    known = _keys(config)
    for override in overrides:
        key, value = _split(override)
        _check_override(key, value, override, known, given[-1])
    return _parse([f"--config={given[-1]}", *overrides])


def _check_override(key: str, value: str, override: str, known: dict[str, Any], file: str) -> None:
    name = key.removeprefix("config.")
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean config.{close[0]}?" if close else f"; keys: {', '.join(known)}"
        raise UserError(f"{override.lstrip('-')}: unknown key {key}{hint}")
    if "=" not in override and known[name] is not bool:
        raise UserError(f"--{key}: write --{key}=VALUE, a {known[name].__name__}")
    try:
        _parse([f"--config={file}", override])
    except (flags.Error, TypeError, ValueError, AttributeError) as error:
        kind = known[name].__name__
        raise UserError(f"{key}={value}: not a {kind}, which this key takes") from error


def _parse(argv: list[str]) -> ConfigDict:
    values = flags.FlagValues()
    argv = ["simclr", *argv]
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    config = holder.value
    if not isinstance(config, ConfigDict):
        raise TypeError(f"get_config returned {type(config).__name__}, not a ConfigDict")
    return config


def _split(arg: str) -> tuple[str, str]:
    flag, _, value = arg.lstrip("-").partition("=")
    return flag, value


def _keys(config: ConfigDict, prefix: str = "") -> dict[str, type]:
    """Every leaf's dotted key and type."""
    keys: dict[str, type] = {}
    for name in config:
        if isinstance(config[name], ConfigDict):
            keys |= _keys(config[name], f"{prefix}{name}.")
        else:
            keys[prefix + name] = config.get_type(name)
    return keys


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
    "data.shuffle_block": _AT_LEAST_1,
    "data.shuffle_window": _AT_LEAST_1,
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
    "model.stem": _one_of("auto", "small", "imagenet"),
    "model.dtype": _one_of("float32", "bfloat16"),
    "model.head": _one_of(*HEADS),
    "model.head_layers": _number(2, 16),
    "model.head_dim": _AT_LEAST_1,
    "loss.name": _one_of(*LOSSES),
    "loss.temperature": _ABOVE_0,
    "optim.name": _one_of(*OPTIMIZERS),
    "optim.lr": _AT_LEAST_0,
    "optim.lr_scaling": _one_of("linear", "sqrt", "none"),
    "optim.weight_decay": _AT_LEAST_0,
    "optim.warmup_epochs": _AT_LEAST_0,
    "train.batch_size": _number(2),
    "train.epochs": _ABOVE_0,
    "train.steps": _AT_LEAST_1,
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
    "knn.k": _AT_LEAST_1,
    "knn.temperature": _ABOVE_0,
}


def wrong(key: str, value: Any, allowed: str) -> UserError:
    """The error for a value: names the key, the value, and what is allowed."""
    return UserError(f"config.{key}={value!r}: must be {allowed}")


def check(config: ConfigDict, *, devices: int) -> None:
    """Checks every key by itself, then the keys that constrain each other.

    Args:
      config: of a training run or an evaluation.
      devices: that batches are split over.

    Raises:
      UserError: names the key, the value and what is allowed.
    """
    for key in _keys(config):
        value = _get(config, key)
        if value is not None and key in RULES and not RULES[key][0](value):
            raise wrong(key, value, RULES[key][1])
    for key in ("train.batch_size", "eval.batch_size", "features.batch_size"):
        value = _get(config, key)
        if value is not None and value % devices:
            raise wrong(key, value, f"a multiple of the {devices} devices")
    if "model" in config:
        _check_model(config)
    if "train" in config and config.data.name is None:
        raise wrong("data.name", None, RULES["data.name"][1])


def _check_model(config: ConfigDict) -> None:
    model, size = config.model, config.data.image_size
    if model.sk_ratio > 0 and model.depth < 50:
        raise wrong("model.sk_ratio", model.sk_ratio, f"0 for depth {model.depth}: bottleneck only")
    if stem_of(model.stem, size) == "imagenet" and size < 32:
        raise wrong("data.image_size", size, "at least 32 for the imagenet stem")


def stem_of(stem: str, image_size: int) -> str:
    """The stem that 'auto' stands for."""
    return stem if stem != "auto" else "small" if image_size <= 32 else "imagenet"


def _get(config: ConfigDict, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        if part not in value:
            return None
        value = value[part]
    return value


def describe(config: ConfigDict, *, device: str, devices: int) -> dict[str, Any]:
    """What a run is made of: its config, package versions and hardware, as JSON."""
    packages = ("simclr_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    versions = {name: metadata.version(name) for name in packages}
    for name in ("tensorflow", "tensorflow-cpu"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "config": json.loads(config.to_json()),
        "versions": {"python": platform.python_version(), **versions},
        "device": device,
        "devices": devices,
    }


def freeze(config: ConfigDict) -> FrozenConfigDict:
    """The config as the parts see it: nothing changes after this."""
    return FrozenConfigDict(config)


def from_json(described: dict[str, Any]) -> ConfigDict:
    """The config in what `describe` wrote; sequences become tuples, as they were."""
    return ConfigDict(_with_tuples(described["config"]))


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_tuples(below) for key, below in value.items()}
    return tuple(value) if isinstance(value, list) else value


def write(workdir: epath.Path, described: dict[str, Any]) -> None:
    """Writes WORKDIR/config.json, whole or not at all."""
    partial = workdir / "config.json.tmp"
    partial.write_text(json.dumps(described, indent=2) + "\n")
    partial.replace(workdir / "config.json")


# Keys that may differ when a run is continued: they change neither the numbers nor the parts.
_FREE = ("log.", "eval.", "checkpoint.", "data.dir", "data.cache_bytes", "data.on_bad_image")


def check_same_run(config: ConfigDict, stored: ConfigDict, workdir: str) -> None:
    """Raises UserError if `config` would not continue the run that `stored` describes."""
    keys = {*_keys(config), *_keys(stored)}
    changed = [
        f"config.{key}={_get(config, key)!r} (the run has {_get(stored, key)!r})"
        for key in sorted(keys)
        if _get(config, key) != _get(stored, key) and not key.startswith(_FREE)
    ]
    if changed:
        raise UserError(
            f"--workdir={workdir}: holds a run of another config; use another workdir, or set "
            f"back {'; '.join(changed)}"
        )

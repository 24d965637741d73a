"""Loads a config from the command line: a file, and other values of some of its keys."""

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, FieldReference, FrozenConfigDict, config_flags

from simclr_jax.config import default, shipped
from simclr_jax.errors import UserError


def load(argv: Sequence[str]) -> FrozenConfigDict:
    """Loads `--config=FILE[:ARGUMENTS]` with its `--config.key=value` overrides.

    Args:
      argv: These flags alone, without the program's name. FILE is a path, or the name of a record
        that comes with the package.

    Returns:
      The config with the overrides.

    Raises:
      UserError: The file is missing or fails, a key is unknown, or a value has the wrong type.
    """
    _, colon, arguments = given(argv).partition(":")
    flag = f"--config={file_of(argv)}{colon}{arguments}"
    overrides = [_positive(arg) for arg in argv if "config." in _split(arg)[0]]
    try:
        config = _parse([flag])
        config.lock()
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[-1]
        if not isinstance(error, flags.Error):  # absl names the error in its last line.
            reason = f"{type(error).__name__}: {reason}"
        raise UserError(f"--config={given(argv)}: {reason}") from error
    types = keys(config)
    overrides = [_quoted(arg, types) for arg in overrides]
    for override in overrides:
        _check_override(override, config, flag)
    # The last one of each key counts; ml_collections would append a tuple to the one before.
    final = {_split(override)[0]: override for override in overrides}
    config = _parse([flag, *(arg for arg in final.values() if _split(arg)[1] != "None")])
    for key, override in final.items():
        if _split(override)[1] == "None":
            *sections, last = key.removeprefix("config.").split(".")
            reduce(getitem, sections, config)[last] = None
    return FrozenConfigDict(config)


def file_of(argv: Sequence[str]) -> str:
    """The path of the file that --config names; see `load`.

    Raises:
      UserError: There is no --config, or no such file or record.
    """
    path = given(argv).partition(":")[0]
    file = Path(path) if Path(path).is_file() else shipped.find(path)
    if file is None:
        raise UserError(
            f"--config={given(argv)}: no such file {path!r}, nor a config of that name in the "
            f"package ({_records_like(path)})"
        )
    return str(file)


def _records_like(path: str) -> str:
    """The names of the records that a path may mean, or else of all in its folder, in words."""
    folder, _, name = path.removeprefix("configs/").removesuffix(".py").rpartition("/")
    last = {record.rpartition("/")[2]: record for record in shipped.records()}
    near = [each for each in last if name and each.startswith(name)]
    near = near or difflib.get_close_matches(name, last, 3, 0.7)
    if near:
        return f"did you mean {' or '.join(last[each] for each in near)}?"
    folders = {record.rpartition("/")[0] for record in shipped.records()}
    here = [each for each in shipped.records() if each.rpartition("/")[0] == folder]
    here = here or [each for each in shipped.records() if "/" not in each]
    return ", ".join([*here, *(f"{other}/…" for other in sorted(folders - {folder, ""}))])


def given(argv: Sequence[str]) -> str:
    """The value of the last --config."""
    values = [value for flag, value in map(_split, argv) if flag == "config"]
    if not values or not values[-1]:
        raise UserError("--config: required, a file such as configs/digits.py")
    return values[-1]


def _check_override(override: str, config: ConfigDict, flag: str) -> None:
    """Raises UserError where the key of an override is unknown or its value has another type.

    Args:
      override: The override, --config.KEY=VALUE.
      config: The config without overrides.
      flag: The flag that loads it, --config=FILE.
    """
    key, value = _split(override)
    name, known = key.removeprefix("config."), keys(config)
    if name not in known:
        raise UserError(f"{override.lstrip('-')}: unknown key config.{name}{hint(name, known)}")
    kind = (type(get(config, name)) if known[name] is object else known[name]).__name__
    if "=" not in override and known[name] is not bool:
        raise UserError(f"--config.{name}: write --config.{name}=VALUE, of type {kind}")
    if value == "None":
        if name not in may_be_none(config):
            raise UserError(f"config.{name}=None: must be of type {kind}; this key may not be None")
        return
    try:
        _parse([flag, override])
    except (flags.Error, TypeError, ValueError, AttributeError) as error:
        also = " or None" if name in may_be_none(config) else ""
        raise UserError(f"config.{name}={value}: must be of type {kind}{also}") from error


_MANY = 120  # More keys than this are too many for a message; a sweep has a thousand.
# The keys that are meant by words of other tools.
_OTHER_WORDS = {
    "arch": "model.depth",
    "bs": "train.batch_size",
    "classes": "data.num_classes",
    "data_dir": "data.dir",
    "dataset": "data.name",
    "folder": "data.dir",
    "layers": "model.depth",
    "learning_rate": "optim.lr",
    "max_epochs": "train.epochs",
    "max_steps": "train.steps",
    "optimizer": "optim.name",
    "path": "data.dir",
    "precision": "model.dtype",
    "resolution": "data.image_size",
    "root": "data.dir",
    "size": "data.image_size",
    "tau": "loss.temperature",
    "warmup": "optim.warmup_epochs",
    "wd": "optim.weight_decay",
}


def meant(name: str, known: Collection[str]) -> list[str]:
    """The keys that an unknown name may mean, the likeliest first, at most three.

    A key comes before others if it ends in the same word or one like it, and then if it begins with
    the same section.

    >>> meant("train.lr", ["optim.lr", "optim.name", "train.epochs"])
    ['optim.lr']
    >>> meant("batchsize", ["eval.batch_size", "train.batch_size"])
    ['train.batch_size', 'eval.batch_size']

    Args:
      name: The name, such as 'train.lr' or 'lr'.
      known: The dotted keys that there are.
    """
    section, _, word = name.rpartition(".")
    last = {key: key.rpartition(".")[2] for key in known}
    of_run = f"run.{name}"  # In a sweep a run's keys have a section.
    if of_run in last:
        return [of_run]
    for meant_by_it in (_OTHER_WORDS.get(word, ""), f"run.{_OTHER_WORDS.get(word)}"):
        if word not in last.values() and meant_by_it in last:
            return [meant_by_it]
    near = [word, *difflib.get_close_matches(word, {*last.values()}, 1, 0.75)]
    here = [key for key in known if key.rpartition(".")[0] == section]
    likely = [key for key in here if last[key] in near] or [
        key for key in here if word in last[key]
    ]
    # Of several sections, that of the training is meant most often.
    found = sorted(
        (key for key in known if last[key] in near),
        key=lambda key: (key[:4] != "run.", key.removeprefix("run.")[:6] != "train."),
    )
    return likely or found[:3] or difflib.get_close_matches(name, known, 1, 0.8)


def hint(name: str, known: Collection[str]) -> str:
    """The end of a message about an unknown key: which one may be meant, or which there are."""
    below = [key for key in known if key.startswith(f"{name}.")]
    if below:
        return f", but a section, of {', '.join(below)}"
    first, dot, rest = name.partition(".")
    sections = {key.partition(".")[0] for key in known if "." in key}
    near = difflib.get_close_matches(first, sections, 1, 0.8) if first not in sections else []
    if dot and near:
        corrected = f"{near[0]}.{rest}"
        if corrected in known:
            return f"; did you mean config.{corrected}?"
        if any(key.startswith(f"{corrected}.") for key in known):
            return f"; did you mean a key of config.{corrected}?"
    likely = meant(name, known)
    if likely:
        return f"; did you mean {' or '.join(f'config.{key}' for key in likely)}?"
    if len(known) > _MANY:
        return "; --help lists the keys"
    return f"; keys: {', '.join(known)}"


def _parse(argv: list[str]) -> ConfigDict:
    """The config that ml_collections makes of --config and its overrides."""
    values = flags.FlagValues()
    argv = ["simclr", *argv]
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    config = holder.value
    if not isinstance(config, ConfigDict):
        raise TypeError(f"get_config returned {type(config).__name__}, not a ConfigDict")
    return config


def _positive(arg: str) -> str:
    """'--config.KEY=false' for '--noconfig.KEY', the form that absl has for it; others as given."""
    flag, value = _split(arg)
    if not flag.startswith("noconfig.") or value:
        return arg
    return f"--{flag.removeprefix('no')}=false"


def _quoted(override: str, types: Mapping[str, type]) -> str:
    """An override of a tuple by words such as crop,flip, with quotes; any other one as given.

    >>> _quoted("--config.augment.ops=crop,flip", {"augment.ops": tuple})
    "--config.augment.ops=('crop','flip')"
    >>> _quoted("--config.augment.ops=(crop,flip),(crop,grey)", {"augment.ops": tuple})
    "--config.augment.ops=(('crop','flip'),('crop','grey'))"

    Args:
      override: The override, --config.KEY=VALUE.
      types: The types of the config's values by dotted key.
    """
    flag, value = _split(override)
    is_tuple = types.get(flag.removeprefix("config.")) is tuple
    words = r"([(\s]*[A-Za-z_]\w*[),]*)+"  # With the brackets and commas around each.
    if not is_tuple or not re.search("[(,]", value) or not re.fullmatch(words, value):
        return override
    quoted = re.sub(r"\w+", r"'\g<0>'", value)
    quoted = re.sub(r"\(('\w+')\)", r"(\1,)", quoted)  # Without a comma it were no tuple.
    return f"--{flag}=({quoted})"


def _split(arg: str) -> tuple[str, str]:
    """The name and the value of --name=value."""
    flag, _, value = arg.lstrip("-").partition("=")
    return flag, value


def keys(config: ConfigDict, prefix: str = "") -> dict[str, type]:
    """The type of every value of a config by its dotted key.

    >>> keys(ConfigDict({"seed": 0, "data": {"name": "digits"}}))
    {'data.name': <class 'str'>, 'seed': <class 'int'>}

    Args:
      config: The config.
      prefix: The text that goes before every key.
    """
    found: dict[str, type] = {}
    for name in config:
        if isinstance(config[name], ConfigDict):
            found |= keys(config[name], f"{prefix}{name}.")
        else:
            found[prefix + name] = config.get_type(name)
    return found


def may_be_none(config: ConfigDict) -> set[str]:
    """The dotted keys of a config that may be None.

    They are made by `placeholder` or as a reference. In a training run's config the defaults count:
    a record may have made another key a reference, to compute it from a third one.

    >>> may_be_none(ConfigDict({"seed": 0, "embed": {"dir": FieldReference("features")}}))
    {'embed.dir'}
    """
    if "train" not in config:
        return _references(config)
    defaults = default.get_config()
    own = _references(config) - keys(defaults).keys()
    return own | (_references(defaults) & keys(config).keys())


def _references(config: ConfigDict, prefix: str = "") -> set[str]:
    """The dotted keys of a config whose values are references; `prefix` goes before each.

    One of the type object takes values of several types, which its rule names, and never None.
    """
    found: set[str] = set()
    for name, value in config.items(preserve_field_references=True):
        if isinstance(value, ConfigDict):
            found |= _references(value, f"{prefix}{name}.")
        elif isinstance(value, FieldReference) and value.get_type() is not object:
            found.add(prefix + name)
    return found


def get(config: ConfigDict, key: str) -> Any:
    """The value of a dotted key such as 'data.name'; None where the config has no such key.

    >>> get(ConfigDict({"data": {"name": "digits"}}), "data.name")
    'digits'
    """
    value: Any = config
    for part in key.split("."):
        if part not in value:
            return None
        value = value[part]
    return value


def changed(config: ConfigDict, values: Mapping[str, Any]) -> FrozenConfigDict:
    """A copy of a config with other values of some keys, of any type.

    >>> changed(ConfigDict({"data": {"num_classes": None}}), {"data.num_classes": 10}).to_dict()
    {'data': {'num_classes': 10}}

    Args:
      config: The config, which stays as it is.
      values: The new values by dotted key.

    Returns:
      The copy.
    """
    copy = ConfigDict(config.to_dict())
    with copy.ignore_type():
        for key, value in values.items():
            *sections, name = key.split(".")
            section = copy
            for each in sections:
                section = section[each]
            section[name] = value
    return FrozenConfigDict(copy)

"""The description of a run in its config.json and in every checkpoint."""

import contextlib
import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict, FrozenConfigDict

from simclr_jax.config import default
from simclr_jax.data.fingerprint import (
    ORDER,
    PARTS,
    Classes,
    classes,
    differences,
    fingerprint,
)
from simclr_jax.data.readable import Readable
from simclr_jax.errors import UserError
from simclr_jax.store import files

# The fingerprints of "train" and "eval", and of "teacher" where there is one.
Fingerprints = dict[str, dict[str, Any]]
_WHAT = {"train": "training images", "eval": "evaluation images", "teacher": "teacher"}


def describe(
    config: ConfigDict, *, device: str, devices: int, fingerprints: Fingerprints | None = None
) -> dict[str, Any]:
    """The description of a run: its config, data, package versions and hardware, as JSON.

    Args:
      config: The config of the run.
      device: The kind of its devices, such as 'TPU v4'.
      devices: The number of its devices.
      fingerprints: Those of its images; None for a run without images of its own.

    Returns:
      "config", "fingerprints", "versions" (by package), "device" and "devices", the kind of the
      "processor", the number of "processes" and the "xla_flags" of the environment: all that the
      bits depend on.
    """
    packages = ("simclr_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    versions = {name: metadata.version(name) for name in (*packages, "pillow")}
    for name in ("tensorflow", "tensorflow-cpu"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "config": json.loads(config.to_json()),
        **({} if fingerprints is None else {"fingerprints": fingerprints}),
        "versions": {"python": platform.python_version(), **versions},
        "device": device,
        "devices": devices,
        "processor": _processor(),
        "processes": jax.process_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _processor() -> str:
    """The kind of this machine's processor, such as 'AMD EPYC 7B13'."""
    with contextlib.suppress(OSError):  # Only Linux has the file.
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def fingerprints(train: Readable, evaluation: Readable) -> Fingerprints:
    """The fingerprints of the images that a run trains on, and of those that it evaluates on.

    That of the training images has the names of their "classes" besides, where they have names.
    """
    found = {
        use: fingerprint(opened.source, labelled=opened.num_classes > 0)
        for use, opened in (("train", train), ("eval", evaluation))
    }
    if (names := named_classes(train)) is not None:
        found["train"]["classes"] = names
    return found


def named_classes(images: Readable) -> Classes | None:
    """The names of the classes of labelled images; None where they are not known."""
    return classes(images.source.class_names) if images.num_classes else None


def classes_of(described: Mapping[str, Any]) -> Classes | None:
    """The names of the classes of a run's classifier; None where they are not known.

    They are those of its labels, or, in a distillation without labels, those of its teacher.

    Args:
      described: The description of the run; those of older versions have no names.
    """
    fingerprints = described.get("fingerprints", {})
    found = (fingerprints.get(use, {}).get("classes") for use in ("train", "teacher"))
    return next((names for names in found if names is not None), None)


def changed_images(now: Fingerprints, described: dict[str, Any]) -> list[str]:
    """What differs between images, and teacher, and those of a run's description, in words."""
    before = described.get("fingerprints", {})
    changed = {use: differences(now[use], before[use]) for use in now if use in before}
    return [f"{PARTS[part]} of the {_WHAT[use]}" for use in changed for part in changed[use]]


def check_same_images(
    now: Fingerprints, described: dict[str, Any], workdir: str, *, allow_change: bool
) -> list[str]:
    """Checks that a run continues on the images, and with the teacher, that it began with.

    Args:
      now: The fingerprints of what to continue with.
      described: The description of the run so far.
      workdir: The folder of the run, for the message.
      allow_change: Whether they may differ where the order of the images does not.

    Returns:
      What differs, in words; nothing if the description is older than fingerprints.

    Raises:
      UserError: The training images are others or have another order, or, without `allow_change`,
        anything differs.
    """
    before = described.get("fingerprints", {})
    words = changed_images(now, described)
    counts = [
        f"{parts['images']} {_WHAT[use]}{_now(parts['images'], now.get(use, {}))}"
        for use, parts in before.items()
        if "images" in parts
    ]
    fixed = "train" in before and not set(ORDER).isdisjoint(
        differences(now["train"], before["train"])
    )
    if words and (fixed or not allow_change):
        allow = "" if fixed else ", add --allow_config_change to go on with these"
        other = f"on other images ({', '.join(counts)})"
        if all(word.endswith(f" of the {_WHAT['teacher']}") for word in words):
            other = "with another teacher (checkpoint {step} of {run})".format(**before["teacher"])
        raise UserError(
            f"--workdir={workdir}: holds a run {other}; "
            f"changed are {', '.join(words)}; put those back{allow}, or use another workdir"
        )
    return words


def _now(images: int, found: Mapping[str, Any]) -> str:
    """How many images there are now, where there were others before, in words."""
    count = found.get("images", images)
    return "" if count == images else f", now {count}"


def read(workdir: epath.Path) -> dict[str, Any]:
    """The description in the config.json of a run's folder.

    Raises:
      UserError: The file is not the description of a run.
    """
    path = workdir / "config.json"
    try:
        described = json.loads(path.read_text())
        from_json(described)
        for section in ("data", "model", "train"):
            described["config"][section]  # Raises KeyError where it is missing.
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: damaged, not the description of a run ({error})") from error
    return described


def from_json(described: dict[str, Any]) -> FrozenConfigDict:
    """The config in a description; its lists, JSON's form of tuples, become tuples again.

    >>> from_json({"config": {"augment": {"ops": [["crop"], ["crop", "flip"]]}}}).augment.ops
    (('crop',), ('crop', 'flip'))

    Args:
      described: The description, of which only "config" is read. Keys that are newer than the run
        take their defaults, which compute what the run computed.
    """
    newest, stored = default.get_config().to_dict(), _with_tuples(described["config"])
    for section, values in newest.items():
        if isinstance(values, dict):
            stored[section] = values | stored.get(section, {})
    return FrozenConfigDict(ConfigDict(stored))


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_tuples(below) for key, below in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def write(workdir: epath.Path, described: dict[str, Any]) -> None:
    """Writes the description of a run to config.json in its folder."""
    files.write_json(workdir / "config.json", described)

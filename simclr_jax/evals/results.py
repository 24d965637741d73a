"""The results of evaluations: what each is of, its file, and the list of all.

    FOLDER/PROTOCOL/STEP/WHAT/result.json       FOLDER/results.jsonl, a row a result

FOLDER is RUN/eval, or another one where the run cannot be written to. A result takes the place of
one of the same things only, so nothing is lost where the same step is evaluated in many ways.
"""

import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Collection, Mapping
from typing import Any

from etils import epath, epy

from simclr_jax import processes
from simclr_jax.errors import UserError, one_line
from simclr_jax.store import files

with epy.lazy_imports():  # tensorboardX loads PyTorch, where that is installed.
    from simclr_jax.store import tensorboard

_log = logging.getLogger(__name__)

Result = dict[str, Any]  # The content of a result.json.

# The entries that TensorBoard draws.
SCORES = (
    *("top1", "top1_std", "top5", "top5_std", "mean_average_precision", "recall_at_1"),
    *("mean_per_class", "map11"),
    *("alignment", "uniformity", "effective_rank", "rankme"),
    *("colour", "rotation", "noise", "sobel"),
)
# The entries that results.jsonl and TensorBoard leave out: they grow with the number of classes or
# of values that are tried.
LONG = ("of", "class_names", "per_class", "confusion", "tried")
LIST = "results.jsonl"  # The name of the list of all results of a folder.
# Keys that a result does not depend on: how the features are computed, and who computes what.
HOW = ("features.batch_size", "features.keep", "transfer.share")
_NO_PART = (*HOW, "protocol", "features.layer", "data.name")  # Its name has the last three anyway.
_LONGEST = 200  # The largest number of letters in the name of a folder; file systems allow 255.


def what(
    protocol: str, layer: str, dataset: str, values: Mapping[str, Any], usual: Mapping[str, Any]
) -> str:
    """The name of what a result is of: the layer, the dataset, and all keys that are not as usual.

    >>> usual = {"knn.k": 200, "seed": 0, "data.dir": None}
    >>> what("knn", "h", "digits", usual, usual)
    'h,digits'
    >>> what("knn", "h", "digits", {**usual, "knn.k": 20, "seed": 1}, usual)
    'h,digits,k=20,seed=1'
    >>> what("knn", "z", "folder", {**usual, "data.dir": "/data/my cats"}, usual)
    'z,folder,data.dir=data_my_cats~21261c82'

    Args:
      protocol: The name of the protocol, whose own keys are named without it.
      layer: The layer of the features.
      dataset: The name of the dataset.
      values: The values of the evaluation's config by dotted key.
      usual: The values that go without saying: those of the protocol's record.

    Returns:
      A name for a folder. A text that does not fit in one is shortened and followed by a digest.
    """
    parts = [layer, _short(dataset)]
    for key, value in values.items():
        if key not in _NO_PART and (key not in usual or value != usual[key]):
            parts.append(f"{key.removeprefix(f'{protocol}.')}={_short(value)}")
    name = ",".join(parts)
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}~{_digest(name)}"


def _short(value: Any) -> str:
    """A value as a part of a file's name."""
    text = str(value)
    plain = re.sub(r"[^\w.+-]+", "_", text, flags=re.ASCII).strip("_")[-40:]
    return plain if plain == text else f"{plain}~{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def place(folder: epath.Path, name: str, of: Mapping[str, Any]) -> epath.Path:
    """The folder of a result: `name`, unless there is a result of other things under that name.

    Then it is the first of NAME~2, NAME~3 … without one. So the images under a path may change, and
    several runs may have their results in one place.

    Args:
      folder: The folder of the results of a protocol and a step.
      name: The name of what the result is of.
      of: All that the result is computed from, as JSON, by name; see `same`.
    """
    candidate, number = folder / name, 1
    while True:
        found = read(candidate / "result.json")
        if found is None or same(of, found.get("of")):
            return candidate
        number += 1
        candidate = folder / f"{name}~{number}"


def same(of: Mapping[str, Any], stored: Any) -> bool:
    """Whether two results are computed from the same things, as far as both say.

    >>> same({"config": {"seed": 0}, "weights": "ab"}, {"config": {"seed": 1}, "weights": "ab"})
    False

    Args:
      of: What one result is of: values, or mappings to values, by name.
      stored: The same of another result, or anything else that was read.
    """
    if not isinstance(stored, Mapping):
        return False
    ours, theirs = (json.loads(json.dumps(each)) for each in (dict(of), dict(stored)))
    for name in ours.keys() & theirs.keys():
        one, other = ours[name], theirs[name]
        if isinstance(one, dict) and isinstance(other, dict):
            if not same(one, other):
                return False
        elif one != other:
            return False
    return True


def write(folder: epath.Path, path: epath.Path, result: Result) -> None:
    """Writes a result, and brings the list of all up to date.

    Args:
      folder: The folder of all results.
      path: The folder of this one, below it.
      result: The result.
    """
    path.mkdir(parents=True, exist_ok=True)
    files.write_json(path / "result.json", result)
    listed = _listed(folder)
    listed.pop(_name(folder, path), None)
    # Another evaluation may write the list at the same time; the last to look sees all results.
    names: set[str] = set()
    while names != (there := _names(folder)):
        names, found = there, rows(folder, listed)
        listed = {row["folder"]: row for row in found}
        files.write(folder / LIST, "".join(f"{json.dumps(row)}\n" for row in found).encode())


def show(folder: epath.Path, path: epath.Path, result: Result) -> None:
    """Writes a result for TensorBoard, to FOLDER/tensorboard/PROTOCOL/WHAT; a failure is logged.

    Args:
      folder: The folder of all results.
      path: The folder of this one, below it.
      result: The result; its accuracies become scalars at the checkpoint's step.
    """
    name, step = result["protocol"], result["checkpoint_step"]
    scores = {f"eval/{name}/{key}": result[key] for key in SCORES if key in result}
    place = folder / "tensorboard" / name / path.name
    try:
        board = tensorboard.Board(place, last_step=None, suffix=f".{step}.{os.getpid()}")
        board.write({"step": step, **scores}, scores.keys())
        board.write_table(f"eval/{name}", _without(result, LONG), step=step)
        board.close()
    except Exception as error:  # The result itself is on disk.
        _log.warning("%s: cannot be written for TensorBoard (%s)", place, one_line(error, 200))


def rows(folder: epath.Path, listed: Mapping[str, Result] | None = None) -> list[Result]:
    """The results below a folder, without their `LONG` entries.

    Args:
      folder: The folder of all results.
      listed: The rows that are known, by folder, whose files are not read again.

    Returns:
      A row a result, with "folder", its place within `folder`; by protocol, step and name.
    """
    found = []
    for name in _names(folder):
        row = (listed or {}).get(name)
        if row is None:
            result = read(folder / name / "result.json")
            if result is None:
                continue
            row = {"folder": name, **_without(result, LONG)}
        found.append(row)
    return sorted(found, key=_order)


def _without(result: Result, entries: Collection[str]) -> Result:
    return {key: value for key, value in result.items() if key not in entries}


def _order(row: Result) -> tuple[str, int, str]:
    step = row.get("checkpoint_step")
    return row["folder"].split("/")[0], step if isinstance(step, int) else 0, row["folder"]


def _names(folder: epath.Path) -> set[str]:
    """The folders with a result; those of versions without WHAT are a level higher."""
    patterns = ("*/*/result.json", "*/*/*/result.json")
    return {_name(folder, path.parent) for pattern in patterns for path in folder.glob(pattern)}


def _name(folder: epath.Path, path: epath.Path) -> str:
    return path.relative_to(folder).as_posix()


def _listed(folder: epath.Path) -> dict[str, Result]:
    """The rows of the list by folder, without those that are damaged."""
    listed = {}
    path = folder / LIST
    for line in path.read_bytes().splitlines() if path.exists() else []:
        row = _parsed(line)
        if row is not None and isinstance(row.get("folder"), str):
            listed[row["folder"]] = row
    return listed


def read(path: epath.Path) -> Result | None:
    """The content of a JSON file, a dict; None where there is none, or it is damaged."""
    try:
        return _parsed(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _parsed(text: bytes) -> Result | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def writable(run: epath.Path, to: str | None) -> epath.Path | None:
    """The folder of the results; None, with a warning, where the run's cannot be written to.

    Args:
      run: The folder of the run.
      to: Another folder for the results.

    Raises:
      UserError: That other folder cannot be written to.
      HostError: It is in Google's storage, whose client is not installed.
    """
    files.check_client(to or run)
    folder = epath.Path(to).expanduser() if to else run / "eval"
    reason = unwritable(folder) if processes.is_primary() else None
    if processes.all_have(reason is None):
        return folder
    if to:
        raise UserError(f"--to={to}: cannot be written to ({reason})")
    if processes.is_primary():
        print(
            f"{folder}: cannot be written to ({reason}); the result is printed and not kept: "
            "--to=FOLDER names another place",
            file=sys.stderr,
            flush=True,
        )
    return None


def unwritable(folder: epath.Path) -> str | None:
    """Why nothing can be written to a folder, which is made; None where something can."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write(probe, b"")
        probe.unlink()
    except Exception as error:  # A bucket's client has its own kinds of errors.
        reason = error.strerror if isinstance(error, OSError) else None
        return reason or one_line(error, 200)
    return None

"""An index of images: the features that the protocol embed has written, to be searched."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath, epy
from ml_collections import ConfigDict

from simclr_jax.config import overrides
from simclr_jax.errors import UserError, one_line
from simclr_jax.evals import embed, results, stored
from simclr_jax.evals.task import Task
from simclr_jax.pages import html
from simclr_jax.run import progress
from simclr_jax.run.network import ROWS_PER_DEVICE, Network
from simclr_jax.store import checkpoint
from simclr_jax.store.files import as_text, is_remote

with epy.lazy_imports():
    import pyarrow as pa
    import pyarrow.parquet as pq

SIDE = 128  # The largest side in pixels of a picture.
_AT_A_TIME = 64  # The number of images that are decoded at a time.
# The entries of a result.json that an index needs.
_ENTRIES = {"checkpoint_step", "untrained", "dataset", "layer", "split", "of"}
_PARTS = ("config", "weights", "view")  # The parts of its entry "of".


class ImageIndex(NamedTuple):
    """The features of images, and what they are of.

    Attributes:
      folder: The folder of the files.
      result: The result.json of the evaluation that has written them.
      x: The features (N, F), mapped; what is read of them is float32.
      rows: The table of the images: split, name and, where there are labels, label.
    """

    folder: epath.Path
    result: dict[str, Any]
    x: np.ndarray
    rows: pa.Table

    def name(self, row: int) -> str:
        """The name of an image within its split."""
        return str(self.rows["name"][row].as_py())

    def split(self, row: int) -> str:
        """The split of an image, by its use: 'train' or 'eval'."""
        return str(self.rows["split"][row].as_py())

    def label(self, row: int) -> int | None:
        """The label of an image; None where it has none."""
        return self.rows["label"][row].as_py() if "label" in self.rows.column_names else None

    @property
    def step(self) -> int:
        """The step of the checkpoint."""
        return int(self.result["checkpoint_step"])

    @property
    def about(self) -> str:
        """The images and the network, in words."""
        dataset, layer = self.result["dataset"], self.result["layer"]
        about = f"{len(self.x):,} images of {dataset}, layer {layer} of checkpoint {self.step}"
        counted = {"unreadable": "unreadable when embedded", "not_finite": "not finite"}
        left_out = [
            f"{self.result[key]:,} {words}"
            for key, words in counted.items()
            if self.result.get(key)
        ]
        return about + (f"; left out: {', '.join(left_out)}" if left_out else "")


def find(run: epath.Path, folder: str | None) -> tuple[ImageIndex, int]:
    """The index in a folder, or the newest one of a run.

    Args:
      run: The folder of the run.
      folder: The folder of the index; None: that of the run's newest step, of several of that the
        one written last.

    Returns:
      The index, and the number of others of the run that could have been meant without a folder.

    Raises:
      UserError: There is no index, or it lacks what tells its origin.
    """
    found = [(path.parent, results.read(path)) for path in run.glob("eval/embed/*/*/result.json")]
    ours = [(_files(place, result), result) for place, result in found if result]
    if folder is None:
        complete = [each for each in ours if _exist(each[0]) and not each[1].get("untrained")]
        if not complete:
            raise UserError(
                f"--run={run}: has no features to search; make them with "
                f"simclr-eval --config=eval/embed --run={run}, or name a folder by --index"
            )
        return _read(*max(complete, key=_age)), len(complete) - 1
    place = epath.Path(folder).expanduser()
    if is_remote(place):
        raise UserError(f"--index={folder}: must be on a local disk; copy the folder there")
    if not _exist(place):
        raise UserError(
            f"--index={folder}: has no {' and '.join(embed.FILES)}, which "
            f"simclr-eval --config=eval/embed --run={run} writes"
        )
    beside = results.read(place / "result.json")
    result = beside or next((each for at, each in ours if _same(at, place)), None)
    if result is None:
        raise UserError(
            f"--index={folder}: nothing tells which network its features are of; there must be "
            f"the result.json of eval/embed beside them, or in {run / 'eval' / 'embed'}"
        )
    return _read(place, result), 0


def _files(place: epath.Path, result: dict[str, Any]) -> epath.Path:
    """The folder of the files of a result, which a key can have put elsewhere."""
    written = result.get("files") or [place / embed.FILES[0]]
    return place if _exist(place) else epath.Path(written[0]).parent


def _exist(place: epath.Path) -> bool:
    return not is_remote(place) and all((place / name).exists() for name in embed.FILES)


def _same(one: epath.Path, other: epath.Path) -> bool:
    return _exist(one) and os.path.samefile(one, other)


def _age(each: tuple[epath.Path, dict[str, Any]]) -> tuple[int, float]:
    place, result = each
    return int(result.get("checkpoint_step", 0)), os.stat(place / embed.FILES[0]).st_mtime


def _read(place: epath.Path, result: dict[str, Any]) -> ImageIndex:
    """The index of the files in a folder.

    Raises:
      UserError: A file is damaged, or the result lacks what the index is of.
    """
    if _ENTRIES - result.keys() or not all(result["of"].get(part) for part in _PARTS):
        raise UserError(
            f"--index={place}: was written by another version, and does not say which weights its "
            "features are of; embed the images again"
        )
    if result["untrained"]:
        raise UserError(
            f"--index={place}: is of the untrained network; embed the images with a checkpoint"
        )
    archive, table = (place / name for name in embed.FILES)
    try:
        x = stored.archived(archive)
        named = [name for name in pq.read_schema(table).names if name != "features"]
        rows = pq.read_table(table, columns=named)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile, pa.ArrowException) as error:
        reason = one_line(error, 200)
        names = " or ".join(embed.FILES)
        raise UserError(f"--index={place}: {names} is damaged ({reason})") from error
    if len(x) != len(rows):
        raise UserError(
            f"--index={place}: {archive.name} has {len(x)} images and {table.name} {len(rows)}; "
            "they must be of the same evaluation"
        )
    return ImageIndex(place, result, x, rows)


def task(index: ImageIndex, reader: checkpoint.Reader, run: str, *, queries: int) -> Task:
    """The evaluation that has written an index, with its network, to embed other images alike.

    Args:
      index: The index.
      reader: The checkpoints of the run.
      run: The folder of the run, for messages.
      queries: The number of images to embed.

    Raises:
      UserError: The index is not of the run.
    """
    steps = reader.steps()
    if index.step not in steps:
        raise UserError(
            f"--index={index.folder}: is of checkpoint {index.step}, and {run} has "
            f"{', '.join(map(str, steps)) or 'none'}; embed the images again"
        )
    of = index.result["of"]
    devices = jax.device_count()
    rows = devices * min(ROWS_PER_DEVICE, max(1, -(-queries // devices)))
    values = {**_flat(of["config"]), "features.batch_size": rows}
    usual = overrides.load(["--config=eval/embed"])
    network = Network.trained(reader, index.step)
    made = Task(ConfigDict(overrides.changed(usual, values)), network, None)
    for name, what in (("weights", "weights"), ("view", "views of the images")):
        if not results.same({name: made.of[name]}, {name: of[name]}):
            raise UserError(
                f"--index={index.folder}: was made with other {what} than those of checkpoint "
                f"{index.step} of {run}; name the run that it was made with, or embed again"
            )
    return made


def pictures(
    index: ImageIndex, task: Task, rows: Iterable[int]
) -> tuple[dict[int, np.ndarray], tuple[str, ...]]:
    """Pictures of images of an index, read from where they were embedded.

    Args:
      index: The index.
      task: The evaluation that has written it.
      rows: The rows of the images.

    Returns:
      The pictures (H, W, 3) uint8 of those that can be read, by row, and the names of the classes:
      none where they are not known, or where the images have other labels now than in the index.

    Raises:
      UserError, ArgumentError, HostError: None can be read.
    """
    by_split: dict[str, dict[str, list[int]]] = {}
    for row in sorted(set(rows)):
        by_split.setdefault(index.split(row), {}).setdefault(index.name(row), []).append(row)
    opened = task.open(index.result["split"])
    pictures: dict[int, np.ndarray] = {}
    renumbered = False
    for split, wanted in by_split.items():
        source = opened[split]
        there = [
            (place, name)
            for place in range(len(source))
            if (name := as_text(source.name(place))) in wanted
        ]
        for start in range(0, len(there), _AT_A_TIME):
            part = there[start : start + _AT_A_TIME]
            loaded, labels = source.load([place for place, _ in part])
            for (place, name), image, label in zip(part, loaded, labels, strict=True):
                if place not in source.bad:  # Another image stands for one that is.
                    picture = html.reduced(html.rgb(image.pixels()), SIDE)
                    pictures |= dict.fromkeys(wanted[name], picture)
                    before = {index.label(row) for row in wanted[name]} - {None}
                    renumbered |= np.ndim(label) == 0 and bool(before - {int(label)})
    if renumbered:
        progress.note(
            "classes are shown by their numbers: images have other labels now than when they were "
            "embedded, as after a class was added; embed them again for the names"
        )
        return pictures, ()
    names = next((source.source.class_names for source in opened.values()), ())
    return pictures, tuple(names)


def value_range(index: ImageIndex) -> Any:
    """The values that were black and white in images of more than 8 bits; None: the usual ones."""
    found = index.result["of"]["view"].get("value_range")
    return None if found is None else tuple(found)


def channels(index: ImageIndex) -> int:
    """The number of channels of the images."""
    return int(index.result["of"]["view"].get("channels", 3))


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a config as JSON by dotted key; lists become tuples again.

    >>> _flat({"seed": 0, "data": {"value_range": [0, 4095]}})
    {'seed': 0, 'data.value_range': (0, 4095)}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = tuple(value) if isinstance(value, list) else value
    return flat

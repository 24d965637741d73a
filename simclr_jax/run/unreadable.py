"""The images that a run could not read: said when it ends, and listed in its folder."""

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from simclr_jax import processes
from simclr_jax.data.readable import NAMED, Readable
from simclr_jax.errors import one_line
from simclr_jax.store import files

FILE = "unreadable.json"
_FATES = {"train": "were replaced", "eval": "were left out of evaluations"}

Images = Mapping[str, Readable]  # Those of a run by their use, 'train' and 'eval'.


def say(images: Images) -> None:
    """Prints how many images could not be read. All processes must call it together."""
    for use, fate in _FATES.items():
        if count := images[use].bad_in_any().size:
            processes.say(f"{count} unreadable images {fate}")


def read(root: epath.Path) -> dict[str, dict[str, Any]]:
    """What a run has listed, by use: "images" (how many there are), "names" (a digest of the names
    of all), "indices" (those of the unreadable ones), and "first", the names of some of these.

    It is empty where the run has no such file, or one that cannot be read.

    Args:
      root: The folder of the run.
    """
    try:
        found = json.loads((root / FILE).read_text())
        return {use: found[use] for use in _FATES if isinstance(found[use]["indices"], list)}
    except Exception:  # Buckets raise many kinds, and the list is no result of the run.
        return {}


def in_words(listed: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What `read` has found, in words; None where it found no list.

    >>> in_words({"train": {"indices": [3, 5]}, "eval": {"indices": []}})
    '2 were replaced'
    >>> in_words({"train": {"indices": []}, "eval": {"indices": []}})
    'none'
    >>> in_words({})

    Args:
      listed: What `read` returned.
    """
    counts = {use: len(of["indices"]) for use, of in listed.items()}
    told = [f"{count:,} {_FATES[use]}" for use, count in counts.items() if count]
    return ", ".join(told) or ("none" if listed else None)


class Listed:
    """The list in the folder of a run, which is brought up to date with each checkpoint.

    An image is checked by the process that reads it. One that goes on with a run adds what it finds
    to the list; where there is none, it cannot know what was found before, and makes none.

    Args:
      root: The folder of the run.
      images: The images.
      prints: Their fingerprints.
      start: The number of updates that the run has made.
    """

    def __init__(self, root: epath.Path, images: Images, prints: Mapping[str, Any], start: int):
        self._path, self._images = root / FILE, images
        before = read(root)
        self._about = {
            use: {key: prints[use][key] for key in ("images", "names")} for use in _FATES
        }
        self._found: dict[str, set[int]] = {}
        for use, about in self._about.items():
            same = use in before and about.items() <= before[use].items()
            if same or not start:
                self._found[use] = {*before[use]["indices"]} if same else set()
        self._written = before

    def save(self) -> None:
        """Brings the list up to date. All processes must call it together."""
        now = {use: self._images[use].bad_in_any().tolist() for use in self._found}
        if not processes.is_primary():
            return
        listed = {}
        for use, indices in now.items():
            self._found[use].update(indices)
            found = sorted(self._found[use])
            first = [self._images[use].name(index) for index in found[:NAMED]]
            listed[use] = {**self._about[use], "indices": found, "first": first}
        if listed and listed != self._written:
            try:
                files.write_json(self._path, listed)
                self._written = listed
            except Exception as error:  # The checkpoint is saved, which matters more.
                processes.say(f"{self._path}: not written ({one_line(error, 200)})")

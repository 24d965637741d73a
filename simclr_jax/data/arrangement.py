"""Which folders of images are splits, and which are classes.

A prefix is the path of a folder with '/' at its end, or '' for the folder of the dataset.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from simclr_jax.store.files import as_bytes

Folders = Mapping[str, int]  # The number of images right in a folder, by prefix.

_ROLES = {
    "train": "train",
    "trn": "train",
    "val": "val",
    "dev": "val",
    "eval": "val",
    "test": "test",
    "tst": "test",
    "unl": "none",
}
_SPLIT = re.compile(
    r"(?:(?:images?|imgs?|data|set)[-_ ]?)?"
    r"(train|trn|val|dev|eval|test|tst|unl)(?:ing|val|id|idate|idation|uation|abell?ed)?"
    r"(?:[-_ ]?(?:set|data|images?|imgs?|split))?(?:[-_ ]?(?:19|20)\d\d)?",
    re.IGNORECASE,
)
# The order in which splits are taken for the evaluation: by role, then by these names.
_ORDER = ("test", "val", "validation", "valid", "dev")
# The names of folders that hold all images, and of those that hold something else about them.
_PICTURES = re.compile(r"images?|imgs?|(?:jpeg|jpg|png)_?images?|inputs?|rgb", re.IGNORECASE)
_ABOUT = re.compile(
    r"masks?|labels?|annotations?|segmentations?|gt|ground[-_ ]?truths?|targets?|depths?|trimaps?",
    re.IGNORECASE,
)
# The names of two folders that hold the same images, large and small.
_TWICE = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (r"hr|high[-_ ]?res(?:olution)?", r"lr|low[-_ ]?res(?:olution)?")
]
_MANY = 6  # The number of folders beyond which none is taken for anything but a class.


class Layout(NamedTuple):
    """The folders of a dataset.

    Attributes:
      base: The prefix of the folder in which the splits or the classes are.
      splits: The names of the folders that are splits, the one to train on first, then the others
        in the order in which they are taken for the evaluation. Without any, all images are to
        train on.
      unclear: Why it is not clear which folders are what; None where it is.
    """

    base: str
    splits: tuple[str, ...] = ()
    unclear: str | None = None


def role(name: str) -> str | None:
    """The use of a folder by its name: 'train', 'val', 'test', 'none', or None for no split.

    >>> [role(name) for name in ("Training", "val2017", "test_set", "unlabeled", "trains")]
    ['train', 'val', 'test', 'none', None]
    """
    found = _SPLIT.fullmatch(name)
    return _ROLES[found[1].lower()] if found else None


def arrange(folders: Folders) -> Layout:
    """Finds the splits among the folders of a dataset, by their names.

    >>> arrange({"DATA/Train/cat/": 12, "DATA/valid/cat/": 3})
    Layout(base='DATA/', splits=('Train', 'valid'), unclear=None)

    Args:
      folders: The folders of the dataset.
    """
    base = below_single_folders(folders, until_split=True)
    names, loose = tops(folders, base)
    splits = [name for name in names if role(name)]
    others = [name for name in names if not role(name)]
    if not splits:
        return Layout(base, unclear=_no_classes(names) or _splits_inside(folders, base))
    train = [name for name in splits if role(name) == "train"]
    train = [name for name in train if name == "train"] or train
    if len(train) > 1:
        return Layout(base, unclear=f"{listed(train)} may each be what to train on")
    if not train:
        known = f"{listed(splits)} may be splits"
        what = f"classes like {listed(others)}" if others else "the only images"
        return Layout(base, unclear=f"{known} or {what}, and none is called 'train'")
    if len(splits) == 1 and others:
        nested = bool(tops(folders, f"{base}{train[0]}/")[0])
        if train == ["train"] and not nested and not loose:
            return Layout(base)  # A class of trains.
        return Layout(
            base, unclear=f"'{train[0]}' may be a split, or a class like {listed(others)}"
        )

    def rank(name: str) -> tuple[int, int, str]:
        known = name.lower()
        place = _ORDER.index(known) if known in _ORDER else len(_ORDER)
        return ("train", "test", "val", "none").index(role(name) or "none"), place, name

    rest = sorted((name for name in splits if role(name) != "train"), key=rank)
    return Layout(base, (*train, *rest))


def find(folders: Folders, layout: Layout, split: str) -> str | None:
    """The prefix of a split that is named by its folder, or by another name of the same role.

    Args:
      folders: The folders of the dataset.
      layout: Their layout.
      split: The name: '.' for all images, a folder's path, or a name such as 'val'.

    Returns:
      The prefix, or None if there is no such folder or several could be meant.
    """
    if split == ".":
        return ""
    for prefix in (f"{layout.base}{split.strip('/')}/", f"{split.strip('/')}/"):
        if any(path.startswith(prefix) for path in folders):
            return prefix
    same = [name for name in layout.splits if role(split) and role(name) == role(split)]
    return f"{layout.base}{same[0]}/" if len(same) == 1 else None


def below_single_folders(folders: Folders, prefix: str = "", *, until_split: bool = False) -> str:
    """The prefix of the first folder with several folders in it, where all images are below it.

    >>> below_single_folders({"DATA/cat/": 1, "DATA/dog/": 1})
    'DATA/'

    Args:
      folders: The folders of the dataset.
      prefix: The prefix to begin with.
      until_split: Whether to stop at the folder above one that is named like a split.

    Returns:
      The prefix; `prefix` itself where there is no such folder.
    """
    deep = prefix
    while True:
        names, loose = tops(folders, deep)
        stop = until_split and len(names) == 1 and role(names[0])
        if loose or len(names) != 1 or stop:
            return deep if len(names) > 1 or stop else prefix
        deep += f"{names[0]}/"


def tops(folders: Folders, prefix: str = "") -> tuple[list[str], int]:
    """The names of the folders with images in a folder, sorted, and the number of images in itself.

    >>> tops({"cat/": 2, "cat/old/": 1, "dog/": 1, "": 3})
    (['cat', 'dog'], 3)
    """
    below = (path[len(prefix) :] for path in folders if path.startswith(prefix) and path != prefix)
    names = {path.partition("/")[0] for path in below}
    return sorted(names, key=as_bytes), folders.get(prefix, 0)


def not_classes(folders: Folders, prefix: str) -> str | None:
    """Why the folders in a folder may be no classes; None where nothing speaks against it."""
    return _no_classes(tops(folders, prefix)[0])


def _no_classes(names: Sequence[str]) -> str | None:
    if not 1 < len(names) <= _MANY:
        return None
    words = {name: set(re.findall(r"[a-z]+|[A-Z][a-z]*", name)) for name in names}
    used = {name: {role(word) for word in words[name]} for name in names}
    training = [name for name in names if "train" in used[name]]
    if training and any(used[name] & {"val", "test"} or len(training) > 1 for name in names):
        return f"{listed(names)} may be parts of splits, or classes"
    pictures = [name for name in names if _PICTURES.fullmatch(name)]
    about = [name for name in names if _ABOUT.fullmatch(name)]
    single = len(about) == 1 and any(
        about[0].lower() in name.lower() for name in names if name not in about
    )
    twice = all(any(map(size.fullmatch, names)) for size in _TWICE)
    if pictures or twice or (about and not single):
        return f"{listed(names)} may be classes, or images and what belongs to them"
    return None


def _splits_inside(folders: Folders, base: str) -> str | None:
    """Why the folders in a folder may have splits of their own; None where none has."""
    inside: dict[str, set[str | None]] = {}
    for path in folders:
        if path.startswith(base):
            name, _, below = path[len(base) :].partition("/")
            inside.setdefault(name, set()).add(role(below.partition("/")[0]))
    for name, roles in inside.items():
        if "train" in roles and roles & {"val", "test"}:
            return f"{name!r} has splits of its own, which may be parts of a class, or a dataset"
    return None


def listed(names: Sequence[str]) -> str:
    """The first names, quoted, and the number of the others, for messages."""
    shown = ", ".join(map(repr, names[:5]))
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown

"""The identity of a split: it stays when the files are moved, and differs where the images do."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from simclr_jax.data.labels import Seen
from simclr_jax.data.source import Source, evenly_spaced
from simclr_jax.store.files import as_bytes

Classes = list[str] | str  # The names of classes in their order; a digest of many.

SAMPLE = 64  # The largest number of images whose bytes are compared.

MAX_NAMES = 1000  # The largest number of names of classes that are written down.

# The parts of a fingerprint, in words for messages.
PARTS = {
    "images": "the number",
    "names": "the names or the order",
    "sizes": "the sizes of the files",
    "bytes": f"the content (of {SAMPLE} that are compared)",
    "labels": f"the labels (of {SAMPLE} that are compared)",
    "seen": "the choice of the labels that are seen",
    "weights": "the weights",
    "classes": "the names or the order of the classes",
}
ORDER = ("images", "names")  # The parts that tell which image an index stands for.


def fingerprint(source: Source, *, labelled: bool = True) -> dict[str, Any]:
    """The fingerprint of a split, as JSON.

    It is the same in all processes and on all hosts, wherever the files lie and whenever they were
    copied there. Few bytes are read: the names of all images and the sizes of all files are
    compared, but the bytes and the labels of at most `SAMPLE` images, evenly spaced.

    Args:
      source: The split.
      labelled: Whether the labels are used.

    Returns:
      "split" (its name) and the entries of `PARTS`: the number of images, and a digest of each
      other part. Without labels there is no "labels", without a choice among them no "seen", and
      without files no "sizes" and "bytes".
    """
    images, labels = source.load(evenly_spaced(source, SAMPLE))
    parts: dict[str, Any] = {
        "split": source.split,
        "images": len(source),
        "names": _digest(source.name(index) for index in range(len(source))),
    }
    sizes = [str(file.size) for file in source.files()]
    if sizes:  # Images made in memory are encoded differently by other versions of the encoder.
        parts["sizes"] = _digest(sizes)
        parts["bytes"] = _digest(hashlib.sha256(_bytes(image)).hexdigest() for image in images)
    if labelled and source.num_classes:
        parts["labels"] = _digest(map(str, labels.tolist()))
    if isinstance(source, Seen):
        parts["seen"] = _digest(map(str, source.rows.tolist()))
    return parts


def classes(names: Sequence[str]) -> Classes | None:
    """The names of classes as JSON, or a digest of more than `MAX_NAMES`; None: there are none.

    >>> classes(("cat", "dog"))
    ['cat', 'dog']
    """
    if not names:
        return None
    return list(names) if len(names) <= MAX_NAMES else _digest(map(repr, names))


def other_classes(here: Classes | None, there: Classes | None) -> str | None:
    """How classes differ from others of the same number, in words; None: not, or it is unknown.

    >>> other_classes(["cat", "dog"], ["dog", "cat"])
    'the same classes in another order'
    >>> other_classes(["cat", "dog"], ["cat", "cow"])
    "other classes, such as 'cow'"

    Args:
      here: The classes.
      there: The others.
    """
    if here is None or there is None or here == there:
        return None
    if isinstance(here, str) or isinstance(there, str):
        return "other classes, or another order"
    others = [name for name in there if name not in here]
    return (
        f"other classes, such as {others[0]!r}" if others else "the same classes in another order"
    )


def cache_key(source: Source) -> str:
    """A text that differs wherever the files differ, lie elsewhere, or are written again.

    It differs with which of their images are chosen, and with what their labels stand for: a class
    that is added to one split of a folder numbers those of the other ones anew. What is computed
    from the images, and their labels, can be kept under it.
    """
    files = (f"{file.path} {file.size} {file.modified}" for file in source.files())
    labels = _digest([*map(repr, source.class_names), repr(source.features)])
    names = _digest(source.name(index) for index in range(len(source)))
    return f"{source.place} {source.split} {len(source)} {names} {_digest(files)} {labels}"


def differences(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """The keys of `PARTS` in which two fingerprints differ.

    >>> differences({"images": 40, "sizes": "a"}, {"images": 40, "sizes": "b"})
    ['sizes']

    A part that one of them lacks is not compared. Where the order differs, all else differs with
    it and is not named.
    """
    found = [key for key in PARTS if key in now and key in before and now[key] != before[key]]
    return [key for key in found if key in ORDER] or found


def _bytes(image: bytes | str) -> bytes:
    """An encoded image; nothing for one that cannot be read."""
    return image if isinstance(image, bytes) else b""


def _digest(lines: Iterable[str]) -> str:
    sha = hashlib.sha256()
    for line in lines:
        sha.update(as_bytes(f"{line}\n"))
    return sha.hexdigest()[:32]

"""What is worth knowing of a dataset before a run: facts and warnings, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simclr_jax.data import duplicates
from simclr_jax.data.readable import Readable
from simclr_jax.data.source import FEW_LABELS, is_labelled
from simclr_jax.data.survey import Seen, Survey

NAMED = 20  # The largest number of broken images that are named.
_SIZES = 8  # The number of sizes that are listed.
_UNEVEN = 10  # The ratio of the largest class to the smallest one from which on it is a warning.


class Classes(NamedTuple):
    """The numbers of images of each class.

    Attributes:
      names: The names of the classes, or their numbers.
      counts: The number of images of each class, by split, (splits, C) int.
      without: The number of images without a label, by split.
      of: The number of images of each split that were counted.
      all: Whether these are all images.
    """

    names: tuple[str, ...]
    counts: np.ndarray
    without: list[int]
    of: list[int]
    all: bool


@dataclass(frozen=True)
class Summary:
    """What was found in the images that are trained on, and in those that are evaluated on.

    Attributes:
      surveys: What was found in each split, that to train on first.
      classes: The numbers of images of each class; None without labels.
      exact: The groups of the same files, as rows of the images that were decoded.
      near: The groups of images that look the same.
      image_size: The side of the views in pixels.
    """

    surveys: list[Survey]
    classes: Classes | None
    exact: list[duplicates.Group]
    near: list[duplicates.Group]
    image_size: int

    @property
    def seen(self) -> list[Seen]:
        """The images that were decoded, split by split."""
        return [one for survey in self.surveys for one in survey.seen]

    @property
    def read(self) -> int:
        """The number of images that were read."""
        return sum(len(survey.read) for survey in self.surveys)

    def place(self, row: int) -> tuple[int, int]:
        """The split of an image that was decoded and its index there, by its row in `seen`."""
        border = len(self.surveys[0].seen)
        return int(row >= border), self.seen[row].number

    def name(self, row: int) -> str:
        """The name of an image that was decoded, by its row in `seen`."""
        split, index = self.place(row)
        return self.surveys[split].source.name(index)

    def leaks(self, groups: Sequence[duplicates.Group]) -> int:
        """The number of images that are evaluated on and have a copy among those trained on."""
        border = len(self.surveys[0].seen)
        found = duplicates.across(groups, border)
        return sum(row >= border for group in found for row in group)

    def broken(self) -> list[tuple[str, str]]:
        """The names of the images that cannot be read, and why."""
        return [
            (f"{survey.source.place}/{survey.source.name(index)}", reason)
            for survey in self.surveys
            for index, reason in survey.broken.items()
        ]


def of(surveys: Sequence[Survey], splits: Sequence[Readable], image_size: int) -> Summary:
    """Summarises what was found.

    Args:
      surveys: What was found in each split, that to train on first.
      splits: The splits, with the labels that are used.
      image_size: The side of the views in pixels.
    """
    seen = [one for survey in surveys for one in survey.seen]
    digests = [one.digest for one in seen]
    exact = duplicates.exact(digests)
    near: list[duplicates.Group] = []
    if seen:
        hashes = np.array([one.hash for one in seen], np.uint64)
        thumbnails = np.stack([one.thumbnail for one in seen])
        near = duplicates.near(digests, hashes, thumbnails, np.array([one.flat for one in seen]))
    return Summary(list(surveys), _classes(surveys, splits), exact, near, image_size)


def _classes(surveys: Sequence[Survey], splits: Sequence[Readable]) -> Classes | None:
    """Counts the classes: of all images where their labels are at hand, else of those read."""
    if not splits[0].num_classes:
        return None
    every = all(len(split) <= FEW_LABELS or not split.source.features for split in splits)
    labels = [split.source.labels() for split in splits] if every else [s.labels for s in surveys]
    number = splits[0].num_classes
    counts = []
    for found in labels:
        several = found.ndim == 2
        ones = (found == 1).sum(axis=0) if several else np.bincount(found[found >= 0])
        counts.append(np.resize(np.pad(ones, (0, max(0, number - len(ones)))), number))
    names = splits[0].source.class_names or tuple(f"class {label}" for label in range(number))
    without = [int((~is_labelled(found)).sum()) for found in labels]
    return Classes(names, np.stack(counts), without, [len(found) for found in labels], every)


def facts(summary: Summary) -> dict[str, str]:
    """What was found, in words, by what it is about."""
    surveys, seen = summary.surveys, summary.seen
    uses = ("to train on", "to evaluate on")
    found = {
        "images": ", ".join(
            f"{len(survey.source):,} {use} ({survey.source.split})"
            for survey, use in zip(surveys, uses, strict=False)
        ),
        "classes": _classes_in_words(summary.classes),
        "read": _read_in_words(summary),
    }
    if not seen:
        return found
    found |= {
        "sizes": _sizes_in_words(seen, summary.image_size),
        "channels": _shared(one.header.channels for one in seen),
        "bits a value": _shared(str(one.header.bits or "unknown") for one in seen),
        "formats": _shared(one.header.format for one in seen)
        + f"; {sum(one.length for one in seen) / len(seen) / 1000:.1f} kB an image on average",
        "one colour": _counted(sum(one.flat for one in seen), "none", "have a single colour"),
        "same files": _groups_in_words(summary, summary.exact),
        "look the same": _groups_in_words(summary, summary.near),
    }
    if alphas := [one.not_opaque for one in seen if one.not_opaque is not None]:
        found["transparency"] = (
            f"{_images(len(alphas))} with an alpha channel or a transparent colour, "
            f"{sum(map(bool, alphas)):,} of them with pixels that are not opaque; transparency is "
            "left out"
        )
    colourless = sum(one.grey for one in seen)
    if colourless:
        found["without colour"] = f"{colourless:,} ({_percent(colourless / len(seen))})" + (
            ": hue, saturation and grey change nothing" if colourless == len(seen) else ""
        )
    return found


def warnings(summary: Summary) -> list[str]:
    """What speaks against the images as they are, a sentence each."""
    seen, read, found = summary.seen, summary.read, []
    small = sum(min(one.width, one.height) < summary.image_size for one in seen)
    if small:
        found.append(
            f"{_of(small, len(seen))} smaller than {summary.image_size} pixels, the side of the "
            "views: they are enlarged"
        )
    if broken := sum(len(survey.broken) for survey in summary.surveys):
        name, reason = summary.broken()[0]
        which = "such as " if broken > 1 else ""
        found.append(f"{_of(broken, read)} broken: {which}{name!r} ({reason})")
    if leaks := summary.leaks(summary.exact):
        found.append(
            f"{_images(leaks)} to evaluate on {_are(leaks)} among those to train on as well"
        )
    if near := summary.leaks(summary.near):
        found.append(f"{_images(near)} to evaluate on look{'s' * (near == 1)} like one to train on")
    copies = sum(len(group) - 1 for group in summary.exact)
    if copies:
        found.append(f"{_of(copies, len(seen))} copies of others, byte for byte")
    if clipped := [one.clipped for one in seen if one.clipped]:
        found.append(
            f"{_of(len(clipped), len(seen))} partly outside value_range, up to "
            f"{_percent(max(clipped))} of an image's values: they become black or white"
        )
    if flat := sum(one.flat for one in seen):
        found.append(f"{_of(flat, len(seen))} of a single colour")
    found += _class_warnings(summary.classes)
    for survey in summary.surveys:
        found += [
            f"{survey.source.name(one.number)} {line}" for one in survey.seen for line in one.lines
        ]
    return found


def sizes(summary: Summary) -> list[tuple[str, int]]:
    """The numbers of images by their shorter side, in pixels, from the smallest on.

    The ranges double, and one begins at the side of the views.
    """
    sides = np.array([min(one.width, one.height) for one in summary.seen])
    if not sides.size:
        return []
    edge = summary.image_size
    low, high = int(sides.min()), int(sides.max())
    edges = [edge]
    while edges[0] > low and edges[0] > 1:
        edges.insert(0, -(-edges[0] // 2))
    while edges[-1] <= high:
        edges.append(edges[-1] * 2)
    counts, _ = np.histogram(sides, [edge - 0.5 for edge in edges])
    return [
        (f"{begin} to {end - 1}" if end - 1 > begin else str(begin), int(count))
        for begin, end, count in zip(edges, edges[1:], counts, strict=False)
        if count
    ]


def shapes(summary: Summary) -> list[tuple[str, int]]:
    """The numbers of images by width and height, the most frequent first, and those of others."""
    found = Counter(f"{one.width}x{one.height}" for one in summary.seen)
    common = found.most_common(_SIZES)
    others = len(summary.seen) - sum(count for _, count in common)
    return common + [(f"{len(found) - _SIZES:,} others", others)] * bool(others)


def _classes_in_words(classes: Classes | None) -> str:
    if classes is None:
        return "none: the images have no labels"
    if not any(classes.of):
        return f"{len(classes.names):,}; not counted, since no image was read"
    counts = classes.counts[0]
    most, least = int(counts.argmax()), int(counts.argmin())
    where = "" if classes.all else f" (counted in {sum(classes.of):,} images that were read)"
    text = f"{len(counts):,}{where}, "
    if counts[most] == counts[least]:
        text += f"each with {counts[most]:,} images to train on"
    else:
        text += (
            f"from {counts[most]:,} images to train on ({classes.names[most]!r}) to "
            f"{counts[least]:,} ({classes.names[least]!r})"
        )
    if any(classes.without):
        text += f"; {sum(classes.without):,} images have no label"
    return text


def _class_warnings(classes: Classes | None) -> list[str]:
    if classes is None or not any(classes.of):
        return []
    found, counts = [], classes.counts[0]
    if missing := int((counts == 0).sum()):
        found.append(
            f"{missing:,} of {len(counts):,} classes {'has' if missing == 1 else 'have'} no image "
            "to train on" + ("" if classes.all else ", of those that were read")
        )
    present = counts[counts > 0]
    if present.size and present.max() >= _UNEVEN * present.min():
        found.append(
            f"the largest class has {present.max() / present.min():.0f} times as many images as "
            "the smallest one"
        )
    return found


def _read_in_words(summary: Summary) -> str:
    total = sum(len(survey.source) for survey in summary.surveys)
    if not summary.read:
        return "none of the images was looked at"
    if summary.read == total:
        return f"all {total:,} images"
    return f"{summary.read:,} of {total:,} images, evenly spaced; the rest is not known"


def _sizes_in_words(seen: Sequence[Seen], image_size: int) -> str:
    found = Counter((one.width, one.height) for one in seen)
    smallest, largest = (
        "{}x{}".format(*choose(found, key=lambda size: size[0] * size[1])) for choose in (min, max)
    )
    small = sum(min(one.width, one.height) < image_size for one in seen)
    text = f"all {smallest}" if len(found) == 1 else f"from {smallest} to {largest}"
    if len(found) > 1:
        width, height = found.most_common(1)[0][0]
        share = found[width, height] / len(seen)
        text += f", {len(found):,} different ones; most often {width}x{height} ({_percent(share)})"
    return text + f"; {small:,} smaller than the views' {image_size} pixels"


def _groups_in_words(summary: Summary, groups: Sequence[duplicates.Group]) -> str:
    if not groups:
        return "none"
    images = sum(map(len, groups))
    text = f"{images:,} images in {len(groups):,} group{'s' * (len(groups) > 1)}"
    leaks = summary.leaks(groups)
    return text + (f", {leaks:,} to evaluate on with one to train on" if leaks else "")


def _shared(kinds: Iterable[str]) -> str:
    """All kinds and their shares, the most frequent first, such as 'RGB 98 (98%), grey 2 (2%)'."""
    found = Counter(kinds)
    total = sum(found.values())
    if len(found) == 1:
        return f"{next(iter(found))}, all"
    return ", ".join(
        f"{kind} {count:,} ({_percent(count / total)})" for kind, count in found.most_common()
    )


def _percent(share: float) -> str:
    """A share in words; one that is not 0 does not become 0.

    >>> _percent(0.5), _percent(0.005), _percent(0.99999)
    ('50%', 'below 1%', 'above 99%')
    """
    rounded = f"{share:.0%}"
    if rounded == "0%" and share > 0:
        return "below 1%"
    return "above 99%" if rounded == "100%" and share < 1 else rounded


def _counted(count: int, none: str, words: str) -> str:
    return f"{count:,} {words}" if count else none


def _images(count: int) -> str:
    return f"{count:,} image{'s' * (count != 1)}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _of(count: int, total: int) -> str:
    """Such as '37 of 5,000 images are'."""
    return f"{count:,} of {total:,} images {_are(count)}"

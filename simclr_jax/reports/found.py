"""What a search has found, in words and as the values of its page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from simclr_jax.evals.index import ImageIndex, channels
from simclr_jax.evals.queries import Query
from simclr_jax.evals.similarity import Nearest
from simclr_jax.pages import html

GROUPS, SHOWN = 100, 24  # The most groups on a page, and the most images of a group there.


class Found(NamedTuple):
    """The images of an index that were found.

    Attributes:
      searched: The index.
      queries: The images that it was searched for.
      nearest: The nearest images of each query.
      groups: The groups of near-duplicates, with the similarities to the first of each; None: they
        were not looked for.
      threshold: The lowest similarity that links near-duplicates.
    """

    searched: ImageIndex
    queries: Sequence[Query]
    nearest: Sequence[Nearest]
    groups: Sequence[Nearest] | None
    threshold: float

    def shown_groups(self) -> list[Nearest]:
        """The groups on the page, with their images there."""
        return [_first(group, SHOWN) for group in (self.groups or ())[:GROUPS]]

    def shown(self) -> set[int]:
        """The rows of all images on the page."""
        return {int(row) for each in (*self.nearest, *self.shown_groups()) for row in each.rows}

    def counted(self) -> str:
        """The number of groups and of the images in them, in words."""
        groups = self.groups or ()
        inside = sum(len(group.rows) for group in groups)
        return (
            f"{len(groups):,} {'group' if len(groups) == 1 else 'groups'} with {inside:,} of the "
            f"{len(self.searched.x):,} images, linked by cosine similarities of at least "
            f"{self.threshold:g}"
        )

    def lines(self) -> Iterator[str]:
        """Yields all that was found as lines of text."""
        for query, near in zip(self.queries, self.nearest, strict=True):
            yield f"\n{query.name}:"
            yield from (
                f"{rank:>4}  {line}" for rank, line in enumerate(_lines(self.searched, near), 1)
            )
        if self.groups is None:
            return
        yield f"\nnear-duplicates: {self.counted()}"
        for number, group in enumerate(self.groups, 1):
            yield f"\ngroup {number}: {len(group.rows)} images, with the similarity to the first"
            yield from (f"      {line}" for line in _lines(self.searched, group))


def _first(near: Nearest, count: int) -> Nearest:
    return Nearest(near.rows[:count], near.similarity[:count])


def _lines(index: ImageIndex, near: Nearest) -> Iterator[str]:
    """Yields the similarity, the name, the split and the label of images."""
    for row, similarity in zip(near.rows.tolist(), near.similarity.tolist(), strict=True):
        label = index.label(row)
        about = index.split(row) + (f", label {label}" if label is not None else "")
        yield f"{similarity:.4f}  {index.name(row)}  ({about})"


def values(
    found: Found, pictures: Mapping[int, np.ndarray], classes: Sequence[str], missing: str
) -> dict[str, Any]:
    """The values of the page search.html.

    Args:
      found: What was found.
      pictures: The pictures (H, W, 3) uint8 of images by row.
      classes: The names of the classes, as far as they are known.
      missing: A sentence about images without a picture; '': there are none.
    """

    def figures(near: Nearest) -> list[dict[str, Any]]:
        return [
            {
                "name": found.searched.name(row),
                "split": found.searched.split(row),
                "label": _class(found.searched.label(row), classes),
                "similarity": f"{similarity:.4f}",
                "picture": pictures.get(row),
            }
            for row, similarity in zip(near.rows.tolist(), near.similarity.tolist(), strict=True)
        ]

    shown = html.shown_as(channels(found.searched))
    names = [query.name for query in found.queries]
    groups = found.shown_groups()
    sections = [(f"query-{number}", name) for number, name in enumerate(names, 1)]
    if found.groups is not None:
        sections.append(("duplicates", "Near-duplicates"))
    return {
        "sections": sections,
        "about": ". ".join(filter(None, (found.searched.about, shown))),
        "place": str(found.searched.folder),
        "missing": missing,
        "queries": [
            {"name": name, "picture": query.picture, "figures": figures(near)}
            for name, query, near in zip(names, found.queries, found.nearest, strict=True)
        ],
        "looked": found.groups is not None,
        "counted": found.counted(),
        "groups": [
            {"count": len(group.rows), "figures": figures(shown)}
            for group, shown in zip(found.groups or (), groups, strict=False)
        ],
        "left_out": len(found.groups or ()) - len(groups),
    }


def _class(label: int | None, classes: Sequence[str]) -> str:
    """A class in words; '' where an image has none."""
    if label is None:
        return ""
    return classes[label] if label < len(classes) else f"label {label}"

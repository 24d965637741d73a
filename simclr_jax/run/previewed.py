"""What a page shows before a run, as values: images, their views and a summary of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import FrozenConfigDict

from simclr_jax.config import inputs
from simclr_jax.data import duplicates, summary
from simclr_jax.data.readable import Readable
from simclr_jax.data.summary import Summary
from simclr_jax.pages import contact, html
from simclr_jax.run import advice
from simclr_jax.run.examples import Example, View

_COLOURS = len(contact.COLOURS)
_LARGEST = 512  # The longest side in pixels of a picture on the page.
_GROUPS, _MEMBERS = 12, 8  # The largest numbers of groups of duplicates, and of images of each.
_MANY = 100  # The number of classes up to which each has its bars.
# A number of a crop is put beside another that is as near, in thousandths of the image's sides.
_NEAR = 60
_TAG = 1.15  # The width of a number in rem.
_SMALL = 64  # The largest side in pixels of a picture whose pixels are shown as squares.


def values(
    config: FrozenConfigDict,
    shown: Sequence[Example],
    found: Summary,
    splits: Sequence[Readable],
    said: Sequence[str],
) -> dict[str, Any]:
    """The values of the names in templates/preview.html, but for the warnings and the command.

    Args:
      config: The config of the run.
      shown: The images with their views.
      found: What was found in the data.
      splits: The splits, that to train on first.
      said: What was logged when the images were found.
    """
    sections = ["warnings", "views", "augmentation", "data", "duplicates", "broken"]
    broken = found.broken()
    return {
        "sections": [(name, name.capitalize()) for name in sections],
        "lead": f"{splits[0].source.place}: what the network is given, and what the data are like.",
        "about": _about_views(config, not shown or any(v.box for one in shown for v in one.views)),
        "examples": [_example(example) for example in shown],
        "settings": _settings(config),
        "place": splits[0].source.place,
        "facts": list(summary.facts(found).items()),
        "said": said,
        "sizes": [(name, [count]) for name, count in summary.sizes(found)],
        "shapes": [(name, [count]) for name, count in summary.shapes(found)],
        **_classes(found),
        "about_duplicates": (
            "Same files: equal byte for byte. Look the same: their 64-bit difference hashes "
            f"differ by {duplicates.NEAR_BITS} bits at most, and their thumbnails of "
            f"{duplicates.THUMBNAIL} pixels correlate by {duplicates.NEAR_CORRELATION} or more. "
            "Whether they are copies is for the eye. Looked for in the images that were read."
        ),
        "duplicates": [
            _groups("Same files", found, found.exact, splits),
            _groups("Look the same", found, found.near, splits),
        ],
        "broken": broken[: summary.NAMED],
        "broken_count": len(broken),
        "read": found.read,
    }


def rows(shown: Sequence[Example]) -> tuple[list[contact.Row], list[str]]:
    """The rows of a contact sheet, and the words above its views."""
    made = [
        contact.Row(
            html.rgb(example.image),
            [view.box for view in example.views],
            [view.epoch > 0 for view in example.views],
            [html.rgb(to_bytes(view.image)) for view in example.views],
        )
        for example in shown
    ]
    heads = [f"{k + 1}: {head(view)}" for k, view in enumerate(shown[0].views)]
    return made, heads


def head(view: View) -> str:
    """Which view of which epoch it is, such as 'epoch 0, view 1'."""
    return f"epoch {view.epoch}, view {view.number + 1}"


def to_bytes(image: np.ndarray) -> np.ndarray:
    """The nearest of 256 levels, uint8, of an image in [0, 1]."""
    return np.round(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)


def _about_views(config: FrozenConfigDict, boxes: bool) -> str:
    count = inputs.views(config).count
    compared = "the two that are compared" if count == 2 else "that are seen"
    crops = (
        "The numbered boxes on an image are the crops of its views, thick for epoch 0."
        if boxes
        else "No crop is shown on the images, for none is the first operation."
    )
    return (
        f"The views are those of seed {config.seed}, made as in training by the pipeline and the "
        f"operations of the device: {count} of an epoch, {compared}, then those of the next "
        "epochs. They are shown as the network gets them, from 0 to 1"
        + ("" if config.data.image_size <= _SMALL else ", compressed as JPEG on this page")
        + f". {crops} {html.shown_as(config.data.channels)}".rstrip()
    )


def _settings(config: FrozenConfigDict) -> list[tuple[str, str]]:
    """The settings of the views, in words, by their keys."""
    views, augment = inputs.views(config), config.augment
    found = [("data.image_size", f"{views.size} pixels a side")]
    lists = [views.applied(view) for view in range(views.count)]
    for view, ops in enumerate(lists[:1] if len(set(lists)) == 1 else lists):
        which = "each view" if len(set(lists)) == 1 else f"view {view + 1}"
        on_device = views.places(view).device
        where = f"; on the device: {', '.join(on_device)}" if on_device else ""
        found.append((f"augment.ops, {which}", (", ".join(ops) or "none") + where))
    low, high = views.crop_area
    return [
        *found,
        *_channels(config),
        ("augment.strength", f"{views.strength:g}, of jitter and grey"),
        ("augment.crop_area", f"{low:g} to {high:g} of the image"),
        ("augment.brightness", views.brightness),
        ("augment.policy", str(augment.policy or "none")),
        ("data.transfer_dtype", config.data.transfer_dtype),
        ("seed", str(config.seed)),
    ]


def _channels(config: FrozenConfigDict) -> list[tuple[str, str]]:
    """The settings of other images than those of red, green and blue in 8 bits, by their keys."""
    channels, value_range = config.data.channels, config.data.value_range
    found = []
    if channels != 3:
        left_out = advice.left_out(inputs.views(config))
        found.append(("data.channels", f"{channels}" + (f"; {left_out}" if left_out else "")))
    if value_range is not None:
        found.append(("data.value_range", "black {:g}, white {:g}".format(*value_range)))
    return found


def _picture(image: np.ndarray, side: int = _LARGEST) -> dict[str, Any]:
    """An image (H, W, C) uint8 for the page, made smaller where its longer side is above `side`."""
    image = html.rgb(image)
    if max(image.shape[:2]) > side:
        image = np.asarray(contact.fitted(image, side))
    return {"picture": image, "exact": max(image.shape[:2]) <= _SMALL}


def _example(example: Example) -> dict[str, Any]:
    height, width = example.image.shape[:2]
    label = f", {example.label}" if example.label else ""
    name = f"{example.name} ({width}x{height} pixels{label})"
    boxes: list[dict[str, Any]] = []
    for k, view in enumerate(example.views):
        if view.box is not None:
            boxes.append(_box(k, view, boxes))
    return {
        "name": name,
        "alt": f"The image {name}",
        **_picture(example.image),
        "boxes": boxes,
        "views": [_view(k, view, example.name) for k, view in enumerate(example.views)],
    }


def _box(place: int, view: View, others: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A crop in thousandths of the image's sides, with a number beside those of others there."""
    assert view.box is not None
    x, y, width, height = (round(1000 * part, 1) for part in view.box)
    beside = sum(abs(box["x"] - x) < _NEAR and abs(box["y"] - y) < _NEAR for box in others)
    return {
        "number": place + 1,
        "colour": place % _COLOURS + 1,
        "dashed": place >= _COLOURS,
        "later": view.epoch > 0,
        "shift": round(_TAG * beside, 2),
        **{"x": x, "y": y, "width": width, "height": height},
    }


def _view(place: int, view: View, name: str) -> dict[str, Any]:
    drawn = [text for text in view.words.values() if text]
    return {
        "number": place + 1,
        "colour": place % _COLOURS + 1,
        "head": head(view),
        "alt": f"View {view.number + 1} of {name} in epoch {view.epoch}",
        **_picture(to_bytes(view.image)),
        "words": drawn,
        "without": ", ".join(name for name, text in view.words.items() if not text),
    }


def _classes(found: Summary) -> dict[str, Any]:
    """The bars of the classes: all of them, or the largest and the smallest ones of many."""
    classes = found.classes
    if classes is None or not any(classes.of):
        return {"classes": [], "classes_caption": "", "classes_series": []}
    order = np.argsort(-classes.counts[0], kind="stable")
    caption = "Images of each class"
    if len(order) > _MANY:
        half = _MANY // 2
        caption = f"Images of the {half} largest and the {half} smallest of {len(order):,} classes"
        order = np.concatenate([order[:half], order[-half:]])
    if not classes.all:
        caption += ", among those that were read"
    uses = ["to train on", "to evaluate on"][: len(classes.counts)]
    return {
        "classes": [
            (classes.names[number], [int(count) for count in classes.counts[:, number]])
            for number in order
        ],
        "classes_caption": caption,
        "classes_series": ["class", *uses],
    }


def _groups(
    heading: str,
    found: Summary,
    groups: Sequence[duplicates.Group],
    splits: Sequence[Readable],
) -> tuple[str, list[dict[str, Any]], int]:
    """The first groups of duplicates with their pictures, those across the splits first."""
    border = len(found.surveys[0].seen)
    leaks = duplicates.across(groups, border)
    ordered = [*leaks, *(group for group in groups if group not in leaks)]
    shown = []
    for group in ordered[:_GROUPS]:
        members = group[:_MEMBERS]
        if group in leaks and members[-1] < border:  # One of the other split is shown too.
            members = [*members[:-1], next(row for row in group if row >= border)]
        pictures = []
        for row in members:
            split, number = found.place(row)
            (image,), _ = splits[split].load([number])
            use = "" if len(splits) == 1 else (" (to train on)", " (to evaluate on)")[split]
            pictures.append({**_picture(image.pixels(), 192), "caption": found.name(row) + use})
        shown.append({"pictures": pictures, "more": len(group) - len(members)})
    return heading, shown, max(0, len(groups) - _GROUPS)

"""Shows what a run would see: images, their augmented views, and what the data are like.

    simclr-preview --config=configs/cifar10.py [--html=preview.html] [--images=8] [--views=8]
    simclr-preview --config=folder --config.data.dir=IMAGES [--scan=5000]

Writes one page of HTML and a contact sheet beside it, as PNG. The views are those of the training,
with the numbers that were drawn. What speaks against the data is said first. Nothing is trained.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from etils import epath, epy
from ml_collections import FrozenConfigDict

from simclr_jax import cli
from simclr_jax.config import overrides
from simclr_jax.errors import ArgumentError, UserError

with epy.lazy_imports():  # --help and most refusals need none of these.
    from simclr_jax.config import constraints, parts, sources
    from simclr_jax.data import readable as data
    from simclr_jax.data import summary as summaries
    from simclr_jax.data import survey
    from simclr_jax.pages import contact, html
    from simclr_jax.run import examples, previewed, progress, terminal
    from simclr_jax.store import files

_SAID_SECONDS = 10.0  # The time between two lines about how far the scan is.


def define(values: flags.FlagValues) -> None:
    """Defines the flags of simclr-preview, besides --config, in `values`."""
    flags.DEFINE_string(
        "html", "preview.html", "the page; the contact sheet beside it ends in .png",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer(
        "images", 8, "images to show, evenly spaced in the training split",
        lower_bound=1, upper_bound=32, flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer(
        "views", 8, "views of each; those beyond an epoch's are the next epochs'",
        lower_bound=1, upper_bound=32, flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer(
        "scan", 5000, "images to read for the summary of the data, evenly spaced; 0: none",
        lower_bound=0, upper_bound=100_000, flag_values=values,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Runs simclr-preview and exits with its status.

    Args:
      argv: The command line without the program's name; None: that of the process.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    about_config, _ = cli.divide(argv)

    def work(values: flags.FlagValues, config: FrozenConfigDict) -> None:
        page = checked(values.html)
        preview(
            config, page, images=values.images, views=values.views, scan=values.scan,
            about_config=about_config, command=shlex.join(["simclr-preview", *argv]),
        )  # fmt: skip

    sys.exit(cli.run(work, doc=__doc__, define=define, argv=argv, joins=False))


def checked(path: str) -> epath.Path:
    """The path of the page, which can be written there.

    Raises:
      UserError: It has another ending than .html, or there is no folder that it can be written to.
    """
    page = epath.Path(path).expanduser()
    if page.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--html={path}: must end in .html; the contact sheet ends in .png")
    if files.is_remote(path):
        files.check_client(path)
        return page
    for place in (page, page.with_suffix(".png")):
        if place.is_dir():
            raise UserError(f"--html={path}: {place} is a folder")
    folder = page.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        what = "cannot be written to" if folder.is_dir() else "is no folder"
        raise UserError(f"--html={path}: {folder} {what}")
    return page


def preview(
    config: FrozenConfigDict,
    page: epath.Path,
    *,
    images: int,
    views: int,
    scan: int,
    about_config: Sequence[str],
    command: str,
) -> None:
    """Writes the page and the contact sheet, and prints what they say.

    Args:
      config: The config of the run.
      page: The path of the page, from `checked`.
      images: The number of images to show.
      views: The number of views of each.
      scan: The number of images to read for the summary.
      about_config: The arguments of the command line that make the config.
      command: The command line, for the page.

    Raises:
      UserError: A key is at fault.
      ArgumentError: There are no such images.
    """
    constraints.check_run(config, devices=1)
    # What is broken is shown, not refused.
    config = overrides.changed(config, {"data.on_bad_image": "replace"})
    progress.note("listing the images")
    with heard() as said:
        splits, refused = opened(config)
    shown: list[examples.Example] = []
    progress.note(f"making views of {images} images, {views} of each")
    warnings = [f"simclr-train refuses this: {line}" for line in refused]
    with only_errors():
        try:
            shown = examples.of_run(config, splits[0], images=images, views=views)
        except ArgumentError as error:
            warnings.append(str(cli.named(error)))
        found = scanned(config, splits, scan)
        warnings += summaries.warnings(found)
        values = previewed.values(config, shown, found, splits, said)
    name = Path(overrides.given(about_config).partition(":")[0]).stem
    text = html.page("preview.html", **values, name=name, command=command, warnings=warnings)
    files.write_text(page, text)
    written = [f"{page}: {_counted(shown, views)}, and what the data are like"]
    if shown:
        sheet = page.with_suffix(".png")
        files.write(sheet, _png(contact.sheet(*previewed.rows(shown))))
        written.append(f"{sheet}: the same images and views as one picture")
    for about, words in values["facts"]:
        print(f"{about:<16}{words}")
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr if terminal.is_quiet() else sys.stdout)
    print(*written, sep="\n")
    again = " once that is mended" if refused or not shown else ""
    following = shlex.join(["simclr-train", *about_config, f"--workdir=runs/{name}"])
    print(f"next{again}: {following}")


def _counted(shown: Sequence[examples.Example], views: int) -> str:
    images, each = len(shown), "s" * (views > 1)
    return f"{images} image{'s' * (images != 1)} with {views} view{each} each"


def opened(config: FrozenConfigDict) -> tuple[list[data.Readable], list[str]]:
    """The images to train on and, where there are any, those to evaluate on.

    Returns:
      The splits, and why a training on them would be refused, a line each.

    Raises:
      ArgumentError: There are no images to train on.
    """
    with sources.shared():
        dataset = sources.open_dataset(config)
        try:
            both = sources.open_splits(config)
            parts.with_counts(config, both[0])
            return [*both], []
        except (UserError, ArgumentError) as error:
            refused = str(cli.explained(error))
        splits = [sources.readable(config, dataset.train())]
        with contextlib.suppress(UserError, ArgumentError):
            splits[0] = sources.to_train_on(config, dataset)
            splits.append(sources.open_split(config, "eval", dataset))
        return splits, [refused]


def scanned(
    config: FrozenConfigDict, splits: Sequence[data.Readable], count: int
) -> summaries.Summary:
    """What is found in at most `count` images of the splits, or a few more where they are many."""
    shares = survey.shares([len(split) for split in splits], count)
    if count:
        progress.note(f"looking at {sum(shares):,} images")
    before, said_at, found = 0, time.monotonic(), []

    def on_read(number: int) -> None:
        nonlocal said_at
        if time.monotonic() - said_at > _SAID_SECONDS:
            said_at = time.monotonic()
            progress.note(f"looked at {before + number:,} of {sum(shares):,} images")

    for split, share in zip(splits, shares, strict=True):
        found.append(
            survey.scan(
                split.source,
                share,
                value_range=config.data.value_range,
                channels=config.data.channels,
                on_read=on_read,
            )
        )
        before += share
    return summaries.of(found, splits, config.data.image_size)


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """A context with the list of the warnings that are logged in it, for the page."""
    lines: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    log, listener = logging.getLogger("simclr_jax"), Listener(logging.WARNING)
    log.addHandler(listener)
    try:
        yield lines
    finally:
        log.removeHandler(listener)


@contextlib.contextmanager
def only_errors() -> Iterator[None]:
    """A context without the log's lines about single images, which the page has in one place."""
    log = logging.getLogger("simclr_jax.data.readable")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _png(image: Any) -> bytes:
    """The content of a PNG file with a picture of Pillow's."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()

"""Finds the images nearest to others, or near-duplicates, among those that a run has embedded.

    simclr-search --run=RUN [--index=FOLDER] QUERY.jpg [QUERY…] [--k=10] [--html=FILE]
    simclr-search --run=RUN [--index=FOLDER] --duplicates[=0.999] [--html=FILE]

FOLDER is what simclr-eval --config=eval/embed has written; without --index it is that of the newest
checkpoint. A query is embedded by the checkpoint, the layer and the preprocessing of the index, and
compared with every image of it by the cosine similarity. --html writes a page with the images.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import flags
from etils import epath, epy

from simclr_jax import cli
from simclr_jax.errors import UserError, one_line

with epy.lazy_imports():  # --help, most refusals and the answer to Ctrl-C need none of these.
    from simclr_jax.evals import index as indices
    from simclr_jax.evals import queries as asked
    from simclr_jax.evals import results, similarity
    from simclr_jax.pages import html
    from simclr_jax.reports import found as results_of
    from simclr_jax.run import network as runs
    from simclr_jax.run import progress
    from simclr_jax.store import checkpoint, files

if TYPE_CHECKING:
    from simclr_jax.evals.task import Task

THRESHOLD = 0.999  # Of near-duplicates where none is given; docs/searching.md says why.
FLAGS = ("run", "index", "k", "html")  # Those with a value that may follow as the next argument.


def define(values: flags.FlagValues) -> None:
    """Defines the flags of simclr-search in `values`."""
    flags.DEFINE_string("run", None, "required; the run's folder", flag_values=values)
    flags.DEFINE_string(
        "index", None, "what eval/embed has written; that of the newest step", flag_values=values
    )
    flags.DEFINE_integer(
        "k", 10, "the number of neighbours of a query", lower_bound=1, flag_values=values
    )
    flags.DEFINE_string("html", None, "a page with the images to write", flag_values=values)
    flags.DEFINE_float(
        "duplicates",
        None,
        f"find groups of images with at least this cosine similarity; --duplicates: {THRESHOLD}",
        lower_bound=0.0,
        upper_bound=1.0,
        flag_values=values,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs simclr-search and exits with its status.

    Args:
      argv: The command line without the program's name; None: that of the process.
    """
    names, rest = divided(sys.argv[1:] if argv is None else argv)

    def work(values: flags.FlagValues) -> None:
        search(
            values.run,
            names,
            folder=values.index,
            k=values.k,
            duplicates=values.duplicates,
            to=values.html,
        )

    sys.exit(cli.run(work, doc=__doc__, define=define, argv=rest, takes_config=False, joins=False))


def divided(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divides a command line into the paths of queries and the flags, '--flag value' included.

    >>> divided(["a.jpg", "--k", "3", "b.jpg", "--duplicates"])
    (['a.jpg', 'b.jpg'], ['--k', '3', '--duplicates=0.999'])
    """
    names: list[str] = []
    rest: list[str] = []
    value_follows = False
    for arg in argv:
        if value_follows or arg.startswith("-"):
            alone = re.fullmatch("--?duplicates", arg) and not value_follows
            rest.append(f"--duplicates={THRESHOLD}" if alone else arg)
        else:
            names.append(arg)
        value_follows = arg.startswith("-") and arg.lstrip("-") in FLAGS and not value_follows
    return names, rest


def search(
    run: str | None,
    names: Sequence[str],
    *,
    folder: str | None = None,
    k: int = 10,
    duplicates: float | None = None,
    to: str | None = None,
) -> None:
    """Prints the nearest images of queries and the groups of near-duplicates, as far as asked for.

    Args:
      run: The folder of the run.
      names: The paths of the queries.
      folder: The folder of the index; None: that of the newest step.
      k: The number of neighbours of a query.
      duplicates: The lowest similarity of near-duplicates; None: these are not looked for.
      to: The path of a page with the images; None: there is none.

    Raises:
      UserError: A flag or an image is at fault, or the index is not of the run.
      DivergedError: The features of a query are not finite.
    """
    root = runs.open_run(run)
    if not names and duplicates is None:
        raise UserError("QUERY: required, the path of an image or several; or --duplicates")
    asked.paths(names)
    place = _place(to) if to else None
    index, others = indices.find(root, folder)
    chosen = f"; {others} more below {root / 'eval/embed'}" if others else ""
    which = f" (the newest{chosen}; --index names one)" if folder is None else ""
    print(f"index: {index.folder}{which}\n{index.about}", flush=True)
    queries = asked.read(names, indices.value_range(index), indices.channels(index))
    checkpoint.quiet()
    task = indices.task(index, checkpoint.Reader(root), str(root), queries=len(queries))
    found = results_of.Found(
        index,
        queries,
        _nearest(task, index, queries, k),
        None if duplicates is None else _groups(index, duplicates),
        duplicates or 0.0,
    )
    for line in found.lines():
        print(line)
    if place:
        shown = _pictures(task, found)
        files.write_text(place, html.page("search.html", **results_of.values(found, *shown)))
        print(f"\nwritten: {place}\nnext: open it in a browser")
    else:
        print("\nnext: the same command with --html=FILE shows the images")


def _place(to: str) -> epath.Path:
    """The path of the page.

    Raises:
      UserError: Nothing can be written there.
    """
    place = epath.Path(to).expanduser()
    reason = "is a folder" if place.is_dir() else results.unwritable(place.parent)
    if reason:
        raise UserError(f"--html={to}: cannot be written ({reason})")
    return place


def _nearest(
    task: Task, index: indices.ImageIndex, queries: Sequence[asked.Query], k: int
) -> list[similarity.Nearest]:
    """The nearest images of each query; k, unless the index has fewer."""
    if not queries:
        return []
    found = similarity.nearest(asked.embedded(task, queries), index.x, k)
    return [
        similarity.Nearest(rows[rows >= 0], near[rows >= 0])
        for rows, near in zip(*found, strict=True)
    ]


def _groups(index: indices.ImageIndex, threshold: float) -> list[similarity.Nearest]:
    """The groups of near-duplicates, with the similarities to the first image of each."""
    count = progress.Count("compared", len(index.x), sys.stderr)
    groups = similarity.groups(index.x, threshold, compared=count.add)
    count.end()
    return [
        similarity.Nearest(rows, similarity.to_rows(index.x[rows[0]], index.x, rows))
        for rows in groups
    ]


def _pictures(
    task: Task, found: results_of.Found
) -> tuple[Mapping[int, np.ndarray], Sequence[str], str]:
    """The pictures for the page, the names of the classes, and a sentence about what is missing."""
    wanted = found.shown()
    progress.note(f"reading {len(wanted)} images for the page")
    pictures: Mapping[int, np.ndarray] = {}
    classes: Sequence[str] = ()
    reason = ""
    try:
        pictures, classes = indices.pictures(found.searched, task, wanted)
    except Exception as error:
        told = cli.explained(error)
        if not cli.is_expected(told):
            raise
        reason = f": {one_line(told)}"
    missing = len(wanted) - len(pictures)
    if missing:
        reason = f"{missing} of {len(wanted)} images cannot be read for the page{reason}"
        progress.note(reason)
    return pictures, classes, reason


if __name__ == "__main__":
    main()

"""Shows a run, or several side by side, as one page of HTML.

    simclr-report RUN [RUN…] [--html=FILE] [--images=1000] [--map=pca|umap]

Writes RUN/report.html, or report.html here for several runs: the numbers, the curves, the
evaluations and the keys; for a single run, with its newest checkpoint, the nearest neighbours of
images, a confusion matrix, the worst failures, a map of the features and the first filters.
Nothing else in a run changes, and a run in training is not disturbed.
"""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags
from etils import epath, epy

from simclr_jax import cli
from simclr_jax.errors import ArgumentError, UserError, one_line

with epy.lazy_imports():  # --help, most refusals and the answer to Ctrl-C need none of these.
    from simclr_jax.evals import results
    from simclr_jax.pages import html
    from simclr_jax.reports import pictures, runs, sections
    from simclr_jax.run import progress
    from simclr_jax.store import files

NAME = "report.html"  # The name of the page where none is given.
FLAGS = ("html", "images", "data_dir", "map")  # All take a value.


def define(values: flags.FlagValues) -> None:
    """Defines the flags of simclr-report in `values`."""
    flags.DEFINE_string(
        "html", None, f"the page; RUN/{NAME}, of several runs {NAME}", flag_values=values
    )
    flags.DEFINE_integer(
        "images",
        1000,
        "at most, evenly spaced in the evaluation split, for the pictures; 0: no pictures, and "
        "nothing is computed",
        lower_bound=0,
        upper_bound=20_000,
        flag_values=values,
    )
    flags.DEFINE_string(
        "data_dir", None, "where the images are now; as in the run", flag_values=values
    )
    flags.DEFINE_enum(
        "map", "pca", ["pca", "umap"], "what makes the map of the features", flag_values=values
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs simclr-report and exits with its status.

    Args:
      argv: The command line without the program's name; None: that of the process.
    """
    paths, rest = divided(sys.argv[1:] if argv is None else argv)

    def work(values: flags.FlagValues) -> None:
        place = report(
            paths, to=values.html, images=values.images, by=values.map, data_dir=values.data_dir
        )
        print(f"written: {place}")
        print(f"next: open it in a browser{_compare(paths)}")

    sys.exit(cli.run(work, doc=__doc__, define=define, argv=rest, takes_config=False, joins=False))


def _compare(paths: Sequence[str]) -> str:
    if len(paths) > 1:
        return ""
    return f", or compare: simclr-report {shlex.quote(paths[0])} OTHER_RUN"


def divided(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divides a command line into the folders of runs and the flags, '--flag value' included.

    >>> divided(["a", "--images", "0", "b", "--map=pca"])
    (['a', 'b'], ['--images', '0', '--map=pca'])
    """
    paths: list[str] = []
    rest: list[str] = []
    value_follows = False
    for arg in argv:
        of_flag = arg.startswith("-") or value_follows
        (rest if of_flag else paths).append(arg)
        value_follows = arg.lstrip("-") in FLAGS and arg.startswith("-")
    return paths, rest


def report(
    paths: Sequence[str],
    *,
    to: str | None = None,
    images: int = 1000,
    by: str = "pca",
    data_dir: str | None = None,
) -> epath.Path:
    """Writes the page of a run or of several, and returns its path.

    Args:
      paths: The folders of the runs.
      to: The path of the page; None: report.html in the run's folder, or here for several runs.
      images: The largest number of images for the pictures; 0: there are none.
      by: The method of the map, 'pca' or 'umap'.
      data_dir: The place of the images now; None: that of the run.

    Raises:
      UserError: A run, the page's path or a flag is at fault.
    """
    if not paths:
        raise UserError("RUN: required, the folder of a run of simclr-train, or several")
    if images == 1:
        raise UserError("--images=1: must be 0, or at least 2 to have neighbours")
    if by == "umap" and importlib.util.find_spec("umap") is None:
        raise UserError("--map=umap: needs umap-learn: pip install -e '.[umap]' in the checkout")
    found = runs.read(paths)
    place = _place(found, to)
    values: dict[str, Any] = {"filters": [], "pictures": None, "pictures_missing": ""}
    values |= sections.of_runs(found)
    if len(found) > 1:
        values["pictures_missing"] = (
            f"Pictures are made for a single run: simclr-report {shlex.quote(str(found[0].root))}"
        )
    elif images == 0:
        values["pictures_missing"] = "Left out by --images=0."
    else:
        values |= _shown(found[0], images, by, data_dir)
    values["sections"] = sections.links(values)
    files.write_text(place, html.page("report.html", **values))
    return place


def _place(found: Sequence[runs.Run], to: str | None) -> epath.Path:
    """The path of the page.

    Raises:
      UserError: Nothing can be written there.
    """
    inside = len(found) == 1 and not to
    place = found[0].root / NAME if inside else epath.Path(to or NAME).expanduser()
    reason = "is a folder" if place.is_dir() else results.unwritable(place.parent)
    if reason:
        hint = "; --html=FILE names another place" if not to else ""
        raise UserError(f"--html={place}: cannot be written ({reason}){hint}")
    return place


def _shown(run: runs.Run, images: int, by: str, data_dir: str | None) -> dict[str, Any]:
    """The values of the sections that need the network; what cannot be had is said in a line."""
    if not run.steps:
        return {"pictures_missing": "The run has no checkpoint yet, so that there are no pictures."}
    progress.note(f"reading checkpoint {run.steps[-1]}, and up to {images} images for the pictures")
    values: dict[str, Any] = {}
    try:
        network = pictures.newest(run)
        every = pictures.filters(network)
        some = f", the first {pictures.FILTERS} of its {len(every)} filters"
        values |= {
            "filters": every[: pictures.FILTERS],
            "filters_note": f"The first convolution of checkpoint {network.name}"
            f"{some * (len(every) > pictures.FILTERS)}, each filter scaled by its largest weight; "
            "grey is 0.",
        }
        if run.config.data.name is None:
            none = "The run has no images of its own: its weights were imported."
            return {**values, "pictures_missing": none}
        found = pictures.sample(network, images, directory=data_dir)
        values |= sections.of_pictures(found, by=by)
    except Exception as error:
        reason = cli.explained(error)
        if not cli.is_expected(reason):
            raise
        progress.note(f"no pictures: {one_line(reason)}")
        elsewhere = "; --data_dir=FOLDER says where the images are now"
        hint = elsewhere if isinstance(error, ArgumentError) else ""
        values["pictures_missing"] = f"There are none: {one_line(reason)}{hint}"
    return values


if __name__ == "__main__":
    main()

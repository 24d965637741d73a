"""What a sweep's folder has that is not of the study: points of other names, runs of other keys."""

from collections.abc import Iterable

from etils import epath

from simclr_jax.config import record
from simclr_jax.config.overrides import get
from simclr_jax.errors import UserError
from simclr_jax.sweeps.points import FROM, Point

# Keys that a run fills in where its config leaves them open.
_FILLED = ("data.num_classes", "data.num_examples", "init.step")


def check(points: Iterable[Point], root: epath.Path) -> None:
    """Checks that a sweep can be kept in a folder.

    Args:
      points: The points that are not done.
      root: The folder, which need not exist.

    Raises:
      UserError: It is a run's folder, or a point's run there has other keys.
    """
    if (root / "config.json").exists():
        raise UserError(f"--workdir={root}: is the folder of a run; name another for the sweep")
    for point in points:
        if not (point.folder / "config.json").exists():
            continue
        stored = record.from_json(record.read(point.folder))
        for key, value in point.computes.items():
            found = get(stored, key)
            moved = isinstance(value, str) and value.startswith(FROM)
            filled = key in _FILLED and value is None
            if found != value and not moved and not filled:
                raise UserError(
                    f"--workdir={root}: holds another study, or this one with other keys: "
                    f"config.run.{key} is {found!r} in points/{point.name} and {value!r} now; name "
                    "another folder, or remove that point's"
                )


def others(points: Iterable[Point], root: epath.Path) -> list[str]:
    """The names of the points in a sweep's folder that are not of the study, sorted."""
    folder = root / "points"
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return sorted(found - {point.name for point in points})


def of_other_studies(points: Iterable[Point], root: epath.Path) -> str:
    """A line about the points in a folder that are not of the study; '' where there are none."""
    names = others(points, root)
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"{root}: {len(names)} points are not of this study: {shown}" if names else ""

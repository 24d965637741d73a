"""The points of a sweep: a training run each, with the measures that are taken of it."""

import re
from dataclasses import dataclass
from typing import Any

from etils import epath
from ml_collections import ConfigDict, FrozenConfigDict

from simclr_jax.config import constraints, overrides, rules
from simclr_jax.config.default_sweep import in_order
from simclr_jax.config.overrides import get, keys
from simclr_jax.errors import UserError
from simclr_jax.pages import panels

FIGURES = (*panels.KINDS, "none")
FROM = "point:"  # What a value begins with that is the folder of another point's run.


@dataclass(frozen=True)
class Point:
    """A point of a sweep with one seed.

    Attributes:
      index: Its number, from 0.
      name: The name of its folder, NAME-seedS.
      config: The config of its run.
      measures: The config of each measure by its name.
      needs: The indices of the points whose runs it starts from.
      at: The row and the column of the table that it stands in.
      seed: Its seed.
      of: The name of the point without the seed.
      computes: The keys that the numbers of its run depend on, by dotted key. The folder of another
        point's run is there as 'point:NAME'.
      folder: The folder of its run.
    """

    index: int
    name: str
    config: FrozenConfigDict
    measures: dict[str, FrozenConfigDict]
    needs: tuple[int, ...]
    at: tuple[Any, Any]
    seed: int
    of: str
    computes: dict[str, Any]
    folder: epath.Path


def check(sweep: FrozenConfigDict) -> None:
    """Checks that a config is a sweep's, with points and measures.

    Raises:
      UserError: A key is missing, or a value is not allowed.
    """
    missing = {"axes", "figure", "measures", "points", "run", "seeds"} - {*sweep}
    if missing:
        raise UserError(
            f"--config: lacks {', '.join(sorted(missing))}; is it a sweep's (configs/paper/…)?"
        )
    seeds = sweep.seeds
    if not seeds or len(set(seeds)) < len(seeds) or not all(map(_is_seed, seeds)):
        raise rules.wrong("seeds", seeds, "different whole numbers from 0, such as 0,1,2")
    if sweep.figure.kind not in FIGURES:
        raise rules.wrong("figure.kind", sweep.figure.kind, f"one of {', '.join(FIGURES)}")
    for section in ("points", "measures"):
        if not len(sweep[section]):
            raise rules.wrong(section, {}, f"at least one of the {section}")
    for name in sweep.points:
        if not re.fullmatch(r"[\w+-]+", name):
            raise rules.wrong("points", name, "named by letters, digits, '_', '+' and '-'")
    _check_cells(sweep)


def _is_seed(value: Any) -> bool:
    return type(value) is int and rules.RUN["seed"].holds(value)


def _check_cells(sweep: FrozenConfigDict) -> None:
    """Raises UserError where a point has an unknown measure, or the place of another point."""
    taken: dict[tuple[Any, ...], str] = {}
    for name in in_order(sweep.points):
        section = sweep.points[name]
        for key, given in ("measures", section.measures), ("paper", tuple(section.paper)):
            if not {*given} <= {*sweep.measures}:
                allowed = f"some of {', '.join(in_order(sweep.measures))}"
                raise rules.wrong(f"points.{name}.{key}", given, allowed)
        for measure in section.measures:
            other = taken.setdefault((*section.at, measure), name)
            if other != name:
                raise rules.wrong(f"points.{name}.at", section.at, f"another place than {other}'s")


def expand(sweep: FrozenConfigDict, root: epath.Path, *, devices: int) -> list[Point]:
    """The points of a sweep: all with the first seed, then all with the second one, and so on.

    Args:
      sweep: The config of the sweep.
      root: The folder of the sweep, which need not exist.
      devices: The number of devices that share each batch.

    Raises:
      UserError: A key of a point is unknown or its value is not allowed.
    """
    check(sweep)
    found: list[Point] = []
    for seed in sweep.seeds:
        first = len(found)
        numbers = {name: first + place for place, name in enumerate(in_order(sweep.points))}
        for name, index in numbers.items():
            earlier = {other: number for other, number in numbers.items() if number < index}
            found.append(_point(sweep, root, name, seed, index, earlier))
            _check(found[-1], devices)
    return found


def _point(
    sweep: FrozenConfigDict,
    root: epath.Path,
    name: str,
    seed: int,
    index: int,
    earlier: dict[str, int],
) -> Point:
    """A point with a seed; `earlier` has the indices of the points that it can start from."""
    section = sweep.points[name]
    values = {key: get(section.run, key) for key in keys(section.run)}
    references, needs = {}, []
    for key, value in values.items():
        if key not in rules.RUN:
            known = overrides.hint(key, list(rules.RUN))
            raise UserError(f"config.points.{name}.run.{key}={value!r}: unknown key{known}")
        if isinstance(value, str) and value.startswith(FROM):
            other = value.removeprefix(FROM)
            if other not in earlier:
                allowed = f"{FROM}NAME of a point before this one ({', '.join(earlier) or 'none'})"
                raise rules.wrong(f"points.{name}.run.{key}", value, allowed)
            needs.append(earlier[other])
            references[key] = value
            values[key] = str(_folder(root, other, seed))
    config = overrides.changed(sweep.run, {**values, "seed": seed, "data.label_seed": seed})
    return Point(
        index=index,
        name=f"{name}-seed{seed}",
        config=config,
        measures={measure: sweep.measures[measure] for measure in section.measures},
        needs=tuple(needs),
        at=section.at,
        seed=seed,
        of=name,
        computes=_computes(config) | references,
        folder=_folder(root, name, seed),
    )


def _folder(root: epath.Path, name: str, seed: int) -> epath.Path:
    return root / "points" / f"{name}-seed{seed}"


def _check(point: Point, devices: int) -> None:
    """Raises UserError where the config of a point's run is not allowed."""
    try:
        constraints.check_run(point.config, devices=devices)
    except UserError as error:
        raise UserError(f"point {point.name}: {error}") from error


def _computes(config: ConfigDict) -> dict[str, Any]:
    """The keys of a run's config that its numbers depend on, with their values, by dotted key."""
    return {
        key: get(config, key)
        for key in keys(config)
        if key in rules.RUN and rules.RUN[key].on_resume != rules.FREE
    }

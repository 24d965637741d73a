"""The keys of a sweep: what varies among its points, what is measured, the paper's numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from simclr_jax.config import overrides, shipped

SIZES = ("small", "paper")


def get_config(size: str) -> ConfigDict:
    """A sweep without points and measures.

    Args:
      size: The size of the study, 'small' or 'paper'.

    Raises:
      ValueError: There is no such size.
    """
    if size not in SIZES:
        raise ValueError(f"'size={size}': must be one of {', '.join(SIZES)}")
    c = ConfigDict()
    c.title = ""  # The title of the table and of the figure.
    c.size = size  # The size of the study: 'small' (two cores) or 'paper' (the paper's setting).
    c.setting = ""  # What is run, in a sentence or two that the table and the figure have.
    # The seeds; each point is run with each of them. Seed s is run.seed and the draw of labels.
    c.seeds = (0,)
    c.axes = ("", "")  # What the rows and the columns of the table are.
    c.run = ConfigDict()  # The keys of all points: those of a training run.
    c.points = ConfigDict()  # The points by name; see `add_point`.
    c.measures = ConfigDict()  # What is measured of a point by name; see `add_measure`.
    c.figure = figure = ConfigDict()
    figure.kind = "bars"  # The figure: 'heatmap', 'lines', 'bars' or 'none'.
    figure.row_mean = False  # Whether a last column has the means of the rows.
    return c


def add_point(
    c: ConfigDict,
    name: str,
    *,
    at: tuple[str | float, str | float],
    run: Mapping[str, Any],
    measures: Sequence[str] | None = None,
    paper: Mapping[str, float] | None = None,
) -> None:
    """Adds a point to a sweep.

    Args:
      c: The sweep, which is changed.
      name: The name of the point, of letters, digits, '_', '+' and '-'.
      at: The row and the column of the table that it stands in.
      run: The keys of the training run that differ from `c.run`, by dotted key. The value
        'point:NAME' is the folder of the run of an earlier point of the same seed, which this one
        starts from.
      measures: The measures that are taken of it; None: all that the sweep has by now.
      paper: The paper's numbers by measure, in percent where the measure is.

    Raises:
      ValueError: The sweep has a point of this name.
    """
    _check_new(c.points, name)
    taken = in_order(c.measures) if measures is None else measures
    point = ConfigDict({"at": at, "measures": tuple(taken), "paper": dict(paper or {})})
    point.number = len(c.points)  # A config lists its sections by name.
    point.run = nested(run)
    c.points[name] = point


def add_measure(
    c: ConfigDict,
    name: str,
    metric: str,
    *,
    protocol: str = "",
    arguments: str | None = None,
    label: str = "",
    percent: bool = True,
    keys: Mapping[str, Any] | None = None,
    untrained: bool = False,
) -> None:
    """Adds a measure to a sweep.

    Args:
      c: The sweep, which is changed.
      name: The name of the measure.
      metric: The entry of the protocol's result, such as 'top1'; without a protocol, the metric of
        the run, whose mean over its last epoch is taken.
      protocol: The protocol of the evaluation, such as 'linear'; '': none.
      arguments: The arguments of the protocol's record, such as 'method=finetune'.
      label: What the table calls it; '': its name.
      percent: Whether it is a fraction that is shown in percent.
      keys: The keys of the evaluation that differ from the protocol's record, by dotted key.
      untrained: Whether the network as initialised is evaluated, not the trained one.

    Raises:
      ValueError: The sweep has a measure of this name, or there is no such protocol or key.
    """
    _check_new(c.measures, name)
    measure = ConfigDict({"label": label or name, "metric": metric, "percent": percent})
    measure.number = len(c.measures)
    measure.untrained = untrained
    measure.eval = ConfigDict()
    if protocol:
        measure.eval = shipped.load(f"eval/{protocol}", arguments)
        for key in keys or {}:
            if key not in (known := overrides.keys(measure.eval)):
                raise ValueError(f"measure {name}: unknown key {key}{overrides.hint(key, known)}")
        with measure.eval.ignore_type():
            measure.eval.update(nested(keys or {}))
    c.measures[name] = measure


def _check_new(section: ConfigDict, name: str) -> None:
    if name in section:
        raise ValueError(f"{name!r}: is there already; names must differ")


def in_order(section: ConfigDict) -> list[str]:
    """The names of the points or of the measures, in the order in which they were added."""
    return sorted(section, key=lambda name: section[name].number)


def nested(values: Mapping[str, Any]) -> ConfigDict:
    """Values by dotted key as nested sections.

    >>> nested({"train.batch_size": 64, "seed": 1}).to_dict()
    {'seed': 1, 'train': {'batch_size': 64}}
    """
    c = ConfigDict()
    for key, value in values.items():
        *sections, name = key.split(".")
        section = c
        for each in sections:
            if each not in section:
                section[each] = ConfigDict()
            section = section[each]
        section[name] = value
    return c


def differences(config: ConfigDict, base: ConfigDict) -> dict[str, Any]:
    """The keys of a config with other values than in a base, by dotted key.

    >>> differences(ConfigDict({"a": 1, "b": 2}), ConfigDict({"a": 1, "b": 3}))
    {'b': 2}
    """
    known = overrides.keys(config)
    return {
        key: overrides.get(config, key)
        for key in known
        if overrides.get(config, key) != overrides.get(base, key)
    }

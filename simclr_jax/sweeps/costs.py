"""What the points of a sweep cost, in steps and hours, before they are run.

The hours are those of training alone. They follow from the images that are trained with in a
second: in the runs of the sweep so far, or else in a few steps with the sweep's own images that are
timed here. The rates of two networks are taken to be as their arithmetic (`flops.of_step`).
"""

import json
import statistics
from collections.abc import Callable, Iterable, Sequence

from ml_collections import FrozenConfigDict

from simclr_jax import mesh as meshes
from simclr_jax.config import overrides, parts, sources
from simclr_jax.data.readable import Readable
from simclr_jax.errors import ArgumentError, UserError
from simclr_jax.run import rehearsal, start
from simclr_jax.sweeps import measured
from simclr_jax.sweeps.points import Point
from simclr_jax.tpu import flops

SECONDS = 1.0  # The length in seconds of each timing; the steps take as long as they take.
ROWS = 64  # The largest number of images a device in a batch whose steps are timed.

Hours = Callable[[FrozenConfigDict], float]  # The hours of a run; its counts must be known.


class Counted:
    """The configs of points with the numbers of images and classes, which are counted once.

    Attributes:
      said: The lines about what could not be counted.
    """

    def __init__(self) -> None:
        self._opened: dict[str, Readable | None] = {}
        self.said: list[str] = []

    def source(self, config: FrozenConfigDict) -> Readable | None:
        """The training images of a config; None where they are not here.

        Raises:
          UserError: They are not here, and the config has no numbers of images and classes.
        """
        data = json.loads(config.data.to_json())
        given = {key: data.pop(key) for key in ("num_examples", "num_classes")}
        key = json.dumps([data, config.objective.name, config.seed])
        if key not in self._opened:
            try:
                self._opened[key] = sources.open_split(config, "train")
            except (ArgumentError, UserError, OSError) as error:
                if None in given.values():
                    raise
                self._opened[key] = None
                self.said.append(f"counted by the config, for the images are not here ({error})")
        return self._opened[key]

    def config(self, config: FrozenConfigDict) -> FrozenConfigDict:
        """A config with the numbers of images and of classes."""
        source = self.source(config)
        return config if source is None else parts.with_counts(config, source)


def listing(points: Sequence[Point], counted: Counted, hours: Hours, how: str) -> str:
    """The lines of the points: number, name, steps, hours and state, with their sum.

    Args:
      points: The points.
      counted: The numbers of images.
      hours: The hours of a run.
      how: Where the hours come from, in words.
    """
    rows, total = [("index", "point", "steps", "hours", "state")], 0.0
    for point in points:
        config = counted.config(point.config)
        took = hours(config)
        total += took
        steps = parts.schedule(config).total_steps
        rows.append((str(point.index), point.name, f"{steps:,}", f"{took:.2f}", state(point)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{row[0]:>{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  "
        f"{row[3]:>{widths[3]}}  {row[4]}"
        for row in rows
    ]
    return "\n".join(
        [
            *lines,
            f"{len(points)} points, {total:.2f} h of training in all, {how}",
            *dict.fromkeys(counted.said),
        ]
    )


def state(point: Point) -> str:
    """Whether a point is done, has failed or has begun, in words."""
    if measured.is_done(point):
        return "done"
    if failure := measured.failure(point):
        return f"failed: {failure}"
    if measured.read(point):
        return "trained"
    return "begun" if (point.folder / "config.json").exists() else "to do"


def known_rates(points: Iterable[Point], counted: Counted) -> dict[float, list[float]]:
    """The images in a second of the runs that are finished, by the operations of an image."""
    rates: dict[float, list[float]] = {}
    for point in points:
        if rate := measured.read(point).get("images_per_second"):
            rates.setdefault(per_image(counted.config(point.config)), []).append(rate)
    return rates


def per_image(config: FrozenConfigDict) -> float:
    """The floating-point operations of a train step for one image; its counts must be known."""
    return flops.of_step(config) / config.train.batch_size


def by_rates(rates: dict[float, list[float]]) -> Hours:
    """The hours of runs by measured rates.

    Args:
      rates: The images in a second, by the operations of an image, in floating point.
    """
    speed = statistics.median(work * rate for work in rates for rate in rates[work])

    def hours(config: FrozenConfigDict) -> float:
        work = per_image(config)
        rate = statistics.median(rates[work]) if work in rates else speed / work
        images = parts.schedule(config).total_steps * config.train.batch_size
        return images / rate / 3600

    return hours


def time_steps(config: FrozenConfigDict, source: Readable) -> float:
    """The images in a second of a few steps, from reading them to the update.

    The batch is at most `ROWS` images a device. The step is compiled before, and the input has work
    until the last step, so that no batch is made in a time that is not counted.

    Args:
      config: The config of a run without a teacher; its counts must be known.
      source: Its training images.
    """
    mesh = meshes.make()
    batch_size = min(config.train.batch_size, ROWS * mesh.size)
    small = {"train.batch_size": batch_size, "train.microbatches": 1, "init.run": None}
    config = overrides.changed(config, small)
    built = parts.build(config, mesh)
    state = start.first_state(config, built)
    found = rehearsal.rehearse(config, built, source, state, seconds=SECONDS)
    return batch_size / found.together

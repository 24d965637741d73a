"""Chooses what a config leaves open, for the time that the run may take, and says why.

The images are counted, the headers of some are read, and a few steps of one network or two are
timed with the images at hand; the rest is the arithmetic of `sizes`. All processes choose the same,
by what process 0 has measured.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import FrozenConfigDict

from simclr_jax import optim, processes
from simclr_jax.config import constraints, overrides, parts, wish
from simclr_jax.data.readable import Readable
from simclr_jax.errors import UserError
from simclr_jax.run import at_hand, progress, sizes, voters
from simclr_jax.run.sizes import Cost, Length, Network

MEASURING = 0.15  # The share of the time that measuring may take.
PROGRAMS = 2.0  # The time of a run's other programs and its end, in compilations of its step.
EVALUATING = 0.05  # The share of the time that the evaluations may take.
EVALUATIONS = 10  # The largest number of evaluations.
SAVING = 900.0  # The longest time between two checkpoints, in seconds.
FEWEST = 20  # The number of updates below which a run is refused.
RATE, TEMPERATURE = 0.3, 0.2  # The rate, which is multiplied by the root of the batch.

_NETWORK = {
    "image_size": "data.image_size",
    "depth": "model.depth",
    "width": "model.width",
    "stem": "model.stem",
}


def made(
    config: FrozenConfigDict,
    source: Readable,
    evaluation: Readable,
    elapsed: Callable[[], float],
) -> FrozenConfigDict:
    """The config of a run with values for all that it leaves open, and its counts.

    Args:
      config: The config.
      source: The images to train on.
      evaluation: The images to evaluate on.
      elapsed: A function that tells the seconds since the command began.

    Raises:
      UserError: The time is too short, or the chosen values do not fit the others.
    """
    if not wish.open_keys(config):
        return parts.with_counts(config, source)
    chooser = Chooser(config, source, evaluation, elapsed)
    length = chooser.length(chooser.network())
    config = overrides.changed(config, chooser.values(length))
    constraints.check_run(config, devices=jax.device_count())
    config = parts.with_counts(config, source)
    for line in chooser.reasons(length, config):
        processes.say(line)
    return config


class Chooser:
    """What is known of a run while its sizes are chosen.

    Args:
      config: The config, which leaves keys open.
      source: The images to train on.
      evaluation: The images to evaluate on.
      elapsed: A function that tells the seconds since the command began.
    """

    def __init__(
        self,
        config: FrozenConfigDict,
        source: Readable,
        evaluation: Readable,
        elapsed: Callable[[], float],
    ):
        self._config, self._source, self._evaluation = config, source, evaluation
        self._elapsed = elapsed
        self._open = set(wish.open_keys(config))
        self._on_cpu = jax.default_backend() == "cpu"
        self._wanted = 3600.0 * config.train.hours
        self._voters = len(voters.voting(config, source, evaluation))
        self._side = at_hand.side_of(source)
        given = {name: self._given(key) for name, key in _NETWORK.items()}
        self._networks = sizes.ladder(self._side, **given)
        self._dtype = self._given("model.dtype") or ("float32" if self._on_cpu else "bfloat16")
        self._measured: dict[Network, Cost] = {}
        self._compiling = 0.0  # The longest compilation of a step so far, in seconds.

    def _given(self, key: str) -> Any:
        """The value of a key; None where it is open."""
        return None if key in self._open else overrides.get(self._config, key)

    def network(self) -> Network:
        """Measures networks until the largest one that is worth its work has been measured.

        Raises:
          UserError: There is no time for a training, or not for one of the given length.
        """
        network = self._networks[0 if self._on_cpu else len(self._networks) // 2]
        if self._left() <= 0:
            raise self._must_be("longer", "the start alone", self._passed())
        while True:
            began = self._passed()
            self._measure(network)
            took = self._passed() - began
            best = self._best(self._networks)
            if best is None or best in self._measured:
                break
            if self._passed() + 1.5 * took > MEASURING * self._wanted:  # No time for another one.
                best = self._best([known for known in self._networks if known in self._measured])
                break
            network = best
        if best is None or self._left() <= 0:
            raise self._too_short()
        return best

    def _measure(self, network: Network) -> None:
        """Measures the cost of an image with a network."""
        progress.note(f"train.hours={self._config.train.hours:g}: timing {network}")
        seen = 2.0**16 if self._on_cpu else 2.0**20
        if self._measured:
            cost = sizes.predicted(network, self._measured)
            seen = cost.seen(self._left(), len(self._source))
        size = self._batch_size(network, seen)
        images = 100.0 * len(self._source)
        config = overrides.changed(self._config, self.values(Length(network, size, images)))
        constraints.check_run(config, devices=jax.device_count())
        cost, compiling = at_hand.cost(parts.with_counts(config, self._source), self._source)
        # What an image takes more in the first epoch is seen best before its file has been read.
        checking = max(each.first - each.together for each in (cost, *self._measured.values()))
        self._measured[network] = cost._replace(first=cost.together + checking)
        self._compiling = max(self._compiling, compiling)

    def _best(self, networks: list[Network]) -> Network | None:
        """The largest network that is worth its work, by what has been measured."""
        costs = [sizes.predicted(each, self._measured) for each in networks]
        left, seen = self._left(), self._seen()
        of_each = zip(networks, costs, strict=True)
        evaluating = [self._evaluations(*each, seen)[1] for each in of_each]
        return sizes.largest(
            networks,
            costs,
            [left - max(EVALUATING * left, seconds) for seconds in evaluating],
            images=len(self._source),
            seen=seen,
        )

    def _passed(self) -> float:
        """The seconds since the command began, those of process 0."""
        return processes.from_primary([round(1e3 * self._elapsed())])[0] / 1e3

    def _left(self) -> float:
        """The seconds that are left for training and evaluating."""
        return 0.98 * self._wanted - self._passed() - PROGRAMS * self._compiling

    def _seen(self) -> float | None:
        """The number of images that the run sees, where its length is given."""
        steps = self._config.train.steps
        if steps is not None:  # With a batch of a quarter of the root of what is seen.
            return float(steps * self._batch_size(None, (steps / 4) ** 2))
        epochs = self._given("train.epochs")
        return None if epochs is None else epochs * len(self._source)

    def _batch_size(self, network: Network | None, seen: float) -> int:
        """The batch of a run that sees so many images."""
        if given := self._given("train.batch_size"):
            return given
        most, unit = math.inf, jax.device_count() * self._config.train.microbatches
        if network is not None:
            each = 4 if self._dtype == "float32" else 2
            most = sizes.most_in_memory(network, memory=at_hand.memory(), value_bytes=each)
        return sizes.batch_size(seen, images=len(self._source), unit=unit, most=most)

    def length(self, network: Network) -> Length:
        """How long a network is trained, and in which batches.

        Args:
          network: The network, which has been measured.

        Raises:
          UserError: There is no time for `FEWEST` updates, or for those of the given length.
        """
        cost, images, given = self._measured[network], len(self._source), self._seen()
        count, evaluating, most = self._evaluations(network, cost, given)
        training = self._left() - evaluating
        seen = given or min(cost.seen(training, images), most)
        size = self._batch_size(network, seen)
        if training <= 0 or (given is None and seen < FEWEST * size):
            raise self._too_short()
        if given is None:
            seen = min(seen, sizes.MOST_EPOCHS * images)
        training = min(training, cost.seconds(seen, images))
        return Length(network, size, seen, count, training, evaluating)

    def _evaluations(
        self, network: Network, cost: Cost, seen: float | None
    ) -> tuple[int, float, float]:
        """The number of evaluations, their seconds, and the most images that are seen with them.

        Args:
          network: The network.
          cost: The cost of an image with it.
          seen: The number of images that the run sees; None: as many as the time allows.
        """
        left, images = self._left(), len(self._source)
        each = sizes.evaluation_seconds(
            cost,
            images=len(self._evaluation),
            voters=self._voters,
            labelled=self._source.num_classes > 0 and self._evaluation.num_classes > 0,
        )
        if self._given_interval(1) is None:
            count = min(max(int(EVALUATING * left / each), 1), EVALUATIONS)
            return count, count * each, math.inf
        size, smaller = math.inf, self._batch_size(network, seen or cost.seen(left, images))
        while smaller < size:  # Smaller batches have more evaluations, and leave fewer images.
            size, every = smaller, self._given_interval(smaller) or math.inf
            count = sizes.evaluations(cost, left, images=images, every=every, each=each)
            count = count if seen is None else math.ceil(seen / every)
            smaller = self._batch_size(network, seen or count * every)
        return count, count * each, count * every

    def _given_interval(self, batch_size: int) -> float | None:
        """The images that are seen between two evaluations, where the config gives that."""
        if (steps := self._config.eval.every_steps) is not None:
            return steps * batch_size
        every = self._given("eval.every_epochs")
        return None if every is None else every * len(self._source)

    def _too_short(self) -> UserError:
        """The error for a time in which there is no training with any network."""
        network, cost = min(self._measured.items(), key=lambda item: item[1].first)
        spent = self._wanted - self._left()
        seen = self._seen() or FEWEST * self._batch_size(self._networks[0], 1.0)
        training = cost.seconds(seen, len(self._source))
        _, evaluating, _ = self._evaluations(network, cost, seen)
        least = 1.2 * (spent + max(training / (1 - EVALUATING), training + evaluating)) / 3600
        return self._must_be(f"about {least:.2g} or more", "start, measuring, compiling", spent)

    def _must_be(self, wanted: str, what: str, spent: float) -> UserError:
        said = f"must be {wanted} here, with {spent:.0f} s for {what}"
        return UserError(f"config.train.hours={self._config.train.hours:g}: {said}")

    def values(self, length: Length) -> dict[str, Any]:
        """The values of the keys that are open."""
        network, size, images = length.network, length.batch_size, len(self._source)
        epochs, updates = length.seen / images, length.seen / size
        small = network.image_size <= sizes.SMALL
        between = math.ceil(updates / length.evaluations)  # Updates from one to the next.
        seconds = length.training / length.evaluations
        saves = max(1, math.ceil(seconds / SAVING))
        everything = {
            "data.image_size": network.image_size,
            # For small images the authors have halved the jitter and left out the blur.
            "augment.ops": ("crop", "flip", "jitter", "grey", *(() if small else ("blur",))),
            "augment.strength": 0.5 if small else 1.0,
            "model.depth": network.depth,
            "model.width": network.width,
            "model.stem": network.stem,
            "model.dtype": self._dtype,
            "loss.temperature": TEMPERATURE,
            "optim.lr": RATE,
            "optim.warmup_epochs": sizes.warmup(updates) * size / images,
            "train.batch_size": size,
            "train.epochs": epochs,
            "eval.every_epochs": between * size / images,
            "checkpoint.every_epochs": max(1, between // saves) * size / images,
        }
        return {key: _rounded(value) for key, value in everything.items() if key in self._open}

    def reasons(self, length: Length, config: FrozenConfigDict) -> list[str]:
        """The lines that say what was chosen, and why.

        Args:
          length: The chosen network, and how long it is trained.
          config: The config with the chosen values and the counts.
        """
        network, train = length.network, config.train
        peak = optim.peak_learning_rate(config.optim.lr, train.batch_size, config.optim.lr_scaling)
        schedule = parts.schedule(config)
        place = "small images" if network.image_size <= sizes.SMALL else "photographs"
        longest = length.seen == sizes.MOST_EPOCHS * len(self._source)
        lines = {
            ("train.hours",): f"{len(self._source):,} images with shorter sides of {self._side} px "
            f"on {jax.device_count()} {jax.devices()[0].device_kind}: {length.training:.0f} s of "
            f"training, after {self._passed():.0f} s so far, with "
            f"{PROGRAMS * self._compiling:.0f} s for compiling and {length.evaluating:.0f} s for "
            f"{length.evaluations} evaluation{'s' * (length.evaluations > 1)}",
            tuple(_NETWORK.values()): f"sees {length.seen:,.0f} images, "
            f"{self._measured[network]}; {self._beyond(length)}",
            ("train.batch_size",): "about a quarter of the root of the images that are seen",
            ("train.epochs",): f"{schedule.total_steps:,} updates"
            + (", no more than the paper's longest run" if longest else ""),
            ("optim.lr", "optim.warmup_epochs", "loss.temperature"): f"a rate of {peak:.3g} after "
            f"{schedule.warmup_steps} updates of warm-up",
            ("augment.ops", "augment.strength"): f"the authors' for {place}",
            ("model.dtype",): f"for a {jax.default_backend()}",
        }
        found = [
            f"{', '.join(f'{key}={_in_words(overrides.get(config, key))}' for key in keys)}: {why}"
            for keys, why in lines.items()
            if {"train.hours", *self._open} & {*keys}
        ]
        if length.evaluating > 0.2 * length.training:
            found.append(
                f"evaluations take {length.evaluating:.0f} s: {len(self._evaluation):,} images are "
                "evaluated on; a smaller data.held_out, or another data.eval_split, leaves more "
                "time for training"
            )
        given = [key for key in wish.OPEN if key not in self._open]
        return [*found, *([f"as given: {', '.join(given)}"] if given else [])]

    def _beyond(self, length: Length) -> str:
        """Why the network is not a larger one, in words."""
        place = self._networks.index(length.network) + 1
        if place == len(self._networks):
            return "there is no larger one to choose"
        larger, images = self._networks[place], len(self._source)
        cost = sizes.predicted(larger, self._measured)
        if (seen := self._seen()) is not None:
            return f"{larger} would take {cost.seconds(seen, images):,.0f} s"
        seen, needed = cost.seen(length.training, images), sizes.needed(larger)
        if seen >= needed and larger not in self._measured:
            return f"there was no time to time {larger}"
        return f"{larger} would see {seen:,.0f}, of the {needed:,.0f} that make it worth its work"


def _in_words(value: Any) -> str:
    """A value as the command line takes it.

    >>> _in_words(0.25), _in_words(("crop", "flip"))
    ('0.25', 'crop,flip')
    """
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _rounded(value: Any) -> Any:
    """A value as it is recorded: a number with a fraction to five digits."""
    return float(f"{value:.5g}") if isinstance(value, float) else value

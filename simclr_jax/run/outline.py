"""What a run is, in words, before any step: its config, data, network, length and checkpoints."""

import re
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from ml_collections import FrozenConfigDict

from simclr_jax import state as states
from simclr_jax.config import inputs, settings, wish
from simclr_jax.config.parts import Intervals, Parts
from simclr_jax.data.readable import Readable
from simclr_jax.models.resnet import stem_for
from simclr_jax.run import progress
from simclr_jax.state import TrainState

WIDTH = 92  # The number of characters of a line.
_INDENT = 11  # Those of the labels, with the space after the longest one.

# The space between a number and its unit, at which no line ends.
_UNIT = re.compile(r"(?<=\d) (?=(?:[KMG]iB|ms|s|min|h|px|cpu)\b)")

Row = tuple[str, str]  # A label and its text, of which each line is wrapped.


class Images(NamedTuple):
    """The images of a run.

    Attributes:
      train: The images to train on.
      evaluation: The images to evaluate on.
    """

    train: Readable
    evaluation: Readable


def text(rows: Sequence[Row]) -> str:
    """Rows as lines of at most `WIDTH` characters; a word that is longer has a line of its own.

    >>> print(text([("step", "62 ms"), ("", "of 128 images")]))
    step       62 ms
               of 128 images
    """
    lines = []
    for label, words in rows:
        joined = _UNIT.sub("\N{NO-BREAK SPACE}", words)
        for number, line in enumerate(joined.splitlines()):
            deeper = len(line) - len(line.lstrip())
            lines += textwrap.wrap(
                line.lstrip(),
                WIDTH,
                initial_indent=f"{'' if number else label:<{_INDENT}}{' ' * deeper}",
                subsequent_indent=" " * (_INDENT + deeper + 2 * bool(deeper)),
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def planned(
    name: str,
    given: FrozenConfigDict,
    config: FrozenConfigDict,
    images: Images,
    built: Parts,
    state: TrainState,
    start: int,
) -> list[Row]:
    """The rows of what is known of a run before any step: config, data, network, length.

    Args:
      name: The name of the config, as --config gives it.
      given: The config as it was given.
      config: The config of the run, with all that was found out.
      images: The images of the run.
      built: The parts of the run.
      state: The state that it begins with.
      start: The number of updates that led to the state.
    """
    given = wish.kept(given, config)  # What was chosen for a time has had its lines.
    found = guessed(given, config, images)
    return [
        ("config", f"{name}\n{different(given)}"),
        *([("found out", "\n".join(found))] if found else []),
        ("data", progress.data_line(*images)),
        ("network", network(config, state)),
        ("run", length(config, built, start)),
        ("disk", disk(config, built.intervals, state)),
    ]


def different(config: FrozenConfigDict) -> str:
    """The keys of a config that are not the default, sorted, with both values."""
    changed = settings.changed(settings.settings([config]))
    if not changed:
        return "all keys have their defaults"
    width = max(len(setting.key) for setting in changed)
    lines = [f"  {one.key:<{width}}  {one.default} → {one.values[0]}" for one in changed]
    return "\n".join([f"{len(changed)} keys are not the default:", *lines])


def guessed(given: FrozenConfigDict, config: FrozenConfigDict, images: Images) -> list[str]:
    """What was left open in a config and was found out, a line each."""
    train, evaluation = images
    source = train.source
    image_key, label_key = (*source.features, None, None)[:2]
    open_keys: dict[str, tuple[bool, Any]] = {
        "augment.colour_on": (given.augment.colour_on is None, inputs.views(config).colour_on),
        "data.eval_split": (given.data.eval_split is None, evaluation.split),
        "data.image_key": (given.data.image_key is None, image_key),
        "data.label_key": (given.data.label_key is None and train.num_classes > 0, label_key),
        "data.num_classes": (given.data.num_classes != train.num_classes, train.num_classes),
        "data.num_examples": (given.data.num_examples != len(train), len(train)),
        "data.views": (given.data.views is None, inputs.views(config).count),
        "eval.batch_size": (given.eval.batch_size is None, config.train.batch_size),
        "init.step": (given.init.step is None, config.init.step),
        "model.stem": (
            given.model.stem == "auto", stem_for(given.model.stem, config.data.image_size)
        ),
        "objective.classes": (given.objective.classes is None, config.objective.classes),
    }  # fmt: skip
    width = max(map(len, open_keys))
    return [
        f"{key:<{width}}  {value}"
        for key, (is_open, value) in open_keys.items()
        if is_open and value is not None
    ]


def network(config: FrozenConfigDict, state: TrainState) -> str:
    """The network, and the numbers of its parameters."""
    names = sorted(state.params, key=("encoder", "head", "classifier").index)
    counts = {name: _count(state.params[name]) for name in names}
    each = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
    model = config.model
    return (
        f"ResNet-{model.depth} x{model.width:g} at {config.data.image_size} px in {model.dtype}: "
        f"{sum(counts.values()):,} parameters ({each})"
    )


def _count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def length(config: FrozenConfigDict, built: Parts, start: int) -> str:
    """The steps of a run, what an update is, and the devices."""
    batch_size, schedule, devices = config.train.batch_size, built.schedule, jax.devices()
    total, warmup = schedule.total_steps, schedule.warmup_steps
    peak = float(schedule.learning_rate(warmup))
    epochs = total * batch_size / config.data.num_examples
    hosts = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    micro = config.train.microbatches
    left = f"goes on from step {start:,}: {total - start:,} steps are left\n" if start else ""
    return (
        f"{total:,} steps of {batch_size:,} images, {epochs:,.4g} epochs of "
        f"{config.data.num_examples / batch_size:,.1f} steps\n{left}"
        f"{config.objective.name}, {config.optim.name}, learning rate up to {peak:.3g} after "
        f"{warmup:,} warm-up step{'s' * (warmup != 1)}\n"
        f"{len(devices)} {devices[0].device_kind}{hosts}, {batch_size // len(devices):,} images "
        f"each{f' in {micro} microbatches' if micro > 1 else ''}"
    )


def disk(config: FrozenConfigDict, intervals: Intervals, state: TrainState) -> str:
    """What the checkpoints of a run take."""
    each = states.nbytes(state)
    count = min(times(intervals.save, 0, intervals.total), config.checkpoint.keep + 1)
    kept = "1 is kept" if count == 1 else f"up to {count} are kept, {size(count * each)}"
    return f"a checkpoint takes {size(each)}; {kept}"


def times(every: int | None, start: int, total: int) -> int:
    """How often something is due in the steps after `start`, up to the last one, when it is due.

    >>> times(4, 0, 8), times(3, 0, 8), times(None, 0, 8), times(3, 6, 8)
    (2, 3, 1, 1)
    """
    if every is None:
        return int(start < total)
    return total // every - start // every + (total % every > 0)


def size(count: float) -> str:
    """A number of bytes in words.

    >>> size(5 * 2**13), size(5 * 2**18), size(3 * 2**29)
    ('40 KiB', '1.2 MiB', '1.50 GiB')
    """
    if count < 2**20:
        return f"{count / 2**10:.0f} KiB"
    return f"{count / 2**20:.1f} MiB" if count < 2**29 else f"{count / 2**30:.2f} GiB"

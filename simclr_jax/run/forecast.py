"""What a run would take, in words: memory, the time of its parts, and which of them binds."""

import os
import resource
import sys

import jax
from ml_collections import FrozenConfigDict

from simclr_jax.config import inputs
from simclr_jax.config.parts import Parts
from simclr_jax.run import advice, at_hand, estimate, online, voters
from simclr_jax.run.estimate import duration
from simclr_jax.run.outline import Images, Row, size, times
from simclr_jax.run.rehearsal import Rehearsal

_FORWARD = 1 / 3  # The part of a step that its forward pass takes, which is all of an evaluation.


def timed(
    config: FrozenConfigDict,
    images: Images,
    built: Parts,
    found: Rehearsal,
    *,
    start: int,
    until_now: float,
) -> list[Row]:
    """The rows of what a few steps have taken, and what a run would take.

    Args:
      config: The config of the run, with its counts.
      images: The images of the run.
      built: The parts of the run.
      found: What the steps have taken.
      start: The number of updates that were done before.
      until_now: The seconds from the command's begin to the first compilation.
    """
    return [
        ("memory", memory(found)),
        ("compiling", compiling(found)),
        ("a step", step(found)),
        ("the input", feed(found)),
        ("both", both(found)),
        ("binding", binding(config, found)),
        ("time", takes(config, images, built, found, start=start, until_now=until_now)),
    ]


def memory(found: Rehearsal) -> str:
    """What the step takes of a device's memory, and the process of its host's."""
    lines = []
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if (of := found.memory) is not None:
        has = f", of {size(limit)}" if limit else ""
        lines.append(
            f"the step takes {size(of.total)} of a device{has}: state and batch {size(of.held)}, "
            f"activations {size(of.temporary)}, the next batch {size(of.next_batch)}"
        )
    used, whole = host_bytes()
    kept = f", with {size(found.kept_bytes)} of decoded images once all are kept"
    lines.append(
        f"this process took up to {size(used)} of the host's {size(whole)}"
        f"{kept if found.kept_bytes else ''}"
    )
    return "\n".join(lines)


def host_bytes() -> tuple[int, int]:
    """The bytes of memory that this process has taken at most, and those that its host has."""
    unit = 1 if sys.platform == "darwin" else 1024
    used = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used, at_hand.host_memory()


def compiling(found: Rehearsal) -> str:
    """The time to compile the step, and whether the run has to do so again."""
    values = jax.config.values
    kept = values["jax_compilation_cache_dir"] and values["jax_enable_compilation_cache"]
    again = "; it is kept, so that the run takes less" if kept else ", and for the run again"
    return f"{found.compile_seconds:.1f} s for the train step{again}"


def step(found: Rehearsal) -> str:
    """The time of a step alone."""
    low, high = min(found.steps), max(found.steps)
    return (
        f"{short(found.step_seconds)}, the median of {len(found.steps)} "
        f"({short(low)} to {short(high)}): "
        f"{rate(found.batch_size / found.step_seconds)} without input"
    )


def feed(found: Rehearsal) -> str:
    """The speed of the input alone."""
    return (
        f"{rate(found.feed.later)} without steps, of images just read; "
        f"{rate(found.feed.first)} in the first epoch, in which each image is checked"
    )


def both(found: Rehearsal) -> str:
    """The time of a step while the next batches are made."""
    speed = rate(found.batch_size / found.together)
    return f"{short(found.together)} a step with its input: {speed}"


def binding(config: FrozenConfigDict, found: Rehearsal) -> str:
    """Which of input and step a run waits for, and what makes that faster."""
    what = "the input" if found.input_binds else "the step"
    faster = advice.faster_input(config) if found.input_binds else advice.faster_step(config)
    if found.shared:
        share = found.input_seconds / (found.input_seconds + found.step_seconds)
        how = f"the cores share their time, {share:.0%} for the input and {1 - share:.0%} for steps"
    elif found.input_binds:
        wait = 1 - found.step_seconds / found.input_seconds
        how = f"the devices wait for it in {wait:.0%} of the time"
    else:
        spare = found.step_seconds / found.input_seconds
        how = f"the input could make {spare:.1f} times as many images"
    return f"{what}: {how}\nfaster with: {', '.join(faster)}"


def takes(
    config: FrozenConfigDict,
    images: Images,
    built: Parts,
    found: Rehearsal,
    *,
    start: int,
    until_now: float,
) -> str:
    """How long a run takes in all, and what is not part of that; see `timed`."""
    intervals, total = built.intervals, built.intervals.total
    begin = until_now + found.compile_seconds
    steps = found.seconds(total - start, config.data.num_examples)
    if intervals.measure:  # Each takes about a step.
        steps += found.step_seconds * (total // intervals.measure - start // intervals.measure)
    count = times(intervals.evaluate, start, total)
    each = evaluation_seconds(config, images, found)
    long = found.shared and not start and steps > estimate.LONG_SECONDS
    shorter = ", ".join(estimate.shorter(config, found.together)) if long else ""
    return (
        f"about {duration(begin + steps + count * each)}: start {duration(begin)}, "
        f"{total - start:,} steps {duration(steps)}, {count:,} evaluation{'s' * (count != 1)} "
        f"{duration(count * each)} (reckoned by their images, not timed)\n"
        "left out: compiling the evaluation, saving, TensorBoard's pictures, other load"
        + (f"\nshorter with any of: {shorter}" if long else "")
        + busy(os.getloadavg()[1], os.cpu_count() or 1)
    )


def busy(load: float, cores: int) -> str:
    """A line where other work takes a part of the cores, so that the times are too long.

    >>> busy(2.0, 2), busy(19.4, 2)
    ('', '\\nthe cores are busy with other work too (load 19 on 2 cores): without it, less')

    Args:
      load: The number of processes and threads that wanted to run, a mean over minutes.
      cores: The number of cores of the host.
    """
    text = f"\nthe cores are busy with other work too (load {load:.0f} on {cores} cores)"
    return f"{text}: without it, less" if load > 1.5 * cores else ""


def evaluation_seconds(config: FrozenConfigDict, images: Images, found: Rehearsal) -> float:
    """The seconds of an evaluation, reckoned by the forward passes and the images that it needs."""
    train, evaluation = images
    batch = config.eval.batch_size or config.train.batch_size
    views = inputs.views(config).count
    passes, made = 0.0, 0.0  # Views that pass the network; images of which the input makes views.
    if config.objective.name == "contrastive":
        made += -(-len(evaluation) // batch) * batch
        passes += views * made
    if online.is_judged(config, evaluation):
        plain = len(evaluation) + len(voters.voting(config, train, evaluation))
        made += plain / views
        passes += plain
    steps = passes / (views * found.batch_size) * found.step_seconds * _FORWARD
    fed = made / found.feed.later
    return steps + fed if found.shared else max(steps, fed)


def short(seconds: float) -> str:
    """A short time in words.

    >>> short(0.0123), short(0.456), short(12.3)
    ('12.3 ms', '456 ms', '12.3 s')
    """
    if seconds < 0.1:
        return f"{1e3 * seconds:.1f} ms"
    return f"{1e3 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def rate(images: float) -> str:
    """A number of images a second in words.

    >>> rate(7.64), rate(4806.3)
    ('7.6 images/s', '4,806 images/s')
    """
    return f"{images:.1f} images/s" if images < 100 else f"{images:,.0f} images/s"

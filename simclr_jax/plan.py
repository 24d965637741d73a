"""Says what a run needs on a TPU slice, before one is paid for.

    simclr-plan --config=configs/imagenet.py --topology=v5e:4x8 [--json=FILE] [--find_batch]

Compiles the config's train step for the slice, on any machine (with the extra '.[tpu]'), without
a TPU or a dataset, and reads what the compiler says: memory, arithmetic, traffic. The
step's time is a bound, the roofline: what the chips' arithmetic, memory or network allows at best.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
from absl import flags
from etils import epy
from ml_collections import FrozenConfigDict

from simclr_jax import cli
from simclr_jax.config import overrides
from simclr_jax.errors import HostError, UserError
from simclr_jax.tpu import chips

with epy.lazy_imports():  # --help, most refusals and the answer to Ctrl-C need none of these.
    from simclr_jax.config import constraints, inputs, parts, rules, sources
    from simclr_jax.data import synthetic
    from simclr_jax.run import rehearsal, teacher
    from simclr_jax.store import files
    from simclr_jax.tpu import feed

MEASURED_SECONDS = 4.0  # The length in seconds of the input pipeline's measurement.
UNEXPLAINED = 1.02  # The largest ratio to the analytic arithmetic that needs no explanation.


def define(values: flags.FlagValues) -> None:
    """Defines the flags of simclr-plan, besides --config, in `values`."""
    flags.DEFINE_string(
        "topology",
        None,
        f"required; CHIP:SHAPE, chips: {', '.join(chips.CHIPS)}",
        flag_values=values,
    )
    flags.DEFINE_string("json", None, "also write the plan to this file", flag_values=values)
    flags.DEFINE_bool(
        "find_batch", False, "find the largest batch that fits, and plan it", flag_values=values
    )
    flags.DEFINE_float(
        "host_views_per_second",
        None,
        "augmented views that a host of the slice makes; None: measured on this machine",
        flag_values=values,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs simclr-plan on a command line (None: that of the process); exits with its status."""

    def work(values: flags.FlagValues, config: FrozenConfigDict) -> None:
        config = checked(config, values.topology)
        if values.find_batch:
            config, measured = find_batch(config, values.topology)
        else:
            measured = compile_step(config, values.topology)
            if "needs" in measured:
                raise does_not_fit(config, values.topology, measured["needs"])
        planned = plan(config, values.topology, measured)
        views = values.host_views_per_second or measure_views(config)
        print(in_words(config, values.topology, planned, measured))
        print(input_in_words(planned, views, given=bool(values.host_views_per_second)))
        print(feed.in_words(config, planned))
        if kind := chips.accelerator(values.topology):
            print(f"next: ACCELERATOR={kind} launch/tpu.sh create (docs/tpu.md, with the cost)")
        if values.json:
            files.write_json(values.json, planned)

    sys.exit(cli.run(work, doc=__doc__, define=define, argv=argv, joins=False))


def checked(config: FrozenConfigDict, topology: str | None) -> FrozenConfigDict:
    """Checks the config and the topology before the compiler runs.

    Args:
      config: The config of the run.
      topology: The chip and the shape of the slice, such as 'v5e:4x8'.

    Returns:
      The config, with a data.name where it has none.

    Raises:
      UserError: A key is not allowed, or a key or the topology is missing.
      ArgumentError: There is no such slice.
      HostError: The TPU compiler is not installed.
    """
    if not topology:
        raise UserError("--topology: required, such as v5e:4x8")
    devices = chips.parse(topology).size
    known = {
        "data.name": config.data.name or "synthetic",
        "augment.colour_on": config.augment.colour_on or "device",
    }
    config = overrides.changed(config, known)
    if config.data.num_examples is None or config.data.num_classes is None:
        raise UserError(
            "config.data.num_examples, config.data.num_classes=None: must be given, for plan opens "
            "no data"
        )
    constraints.check_run(config, devices=devices)
    config = teacher.with_classes(config)
    if importlib.util.find_spec("libtpu") is None:
        raise HostError(
            "simclr-plan: needs the TPU compiler: pip install -e '.[tpu]' in the checkout"
        )
    return config


def compile_step(config: FrozenConfigDict, topology: str) -> dict[str, Any]:
    """The measurements of `compiled.measure`, made in another process, for a compiler can crash.

    Args:
      config: The checked config of the run.
      topology: The chip and the shape of the slice.

    Raises:
      HostError: The compiler failed or crashed.
    """
    request = {"config": json.loads(config.to_json()), "topology": topology}
    child = subprocess.run(
        [sys.executable, "-m", "simclr_jax.tpu.compiled"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        # A program that is loaded for chips that are not here could not be asked what it needs.
        env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"},
    )
    if child.returncode == 0:
        return json.loads(child.stdout.splitlines()[-1])
    lines = child.stderr.splitlines() or [""]
    fatal = [line for line in lines if re.match(r"F\d{4} ", line)]  # With the month and the day.
    said = (fatal or [line for line in lines if "Error" in line][-1:] or lines[-1:])[0][:300]
    how = "crashed" if child.returncode < 0 else "failed"
    raise HostError(f"--topology={topology}: libtpu {metadata.version('libtpu')} {how}: {said}")


def does_not_fit(config: FrozenConfigDict, topology: str, needs: int) -> UserError:
    """The error for a step that needs more memory (in bytes) than a chip has."""
    available = chips.parse(topology).chip.hbm_bytes
    return rules.wrong(
        "train.batch_size",
        config.train.batch_size,
        f"smaller for {topology}: the step needs {gib(needs)} of a chip's {gib(available)} GiB; or "
        "set train.microbatches or model.remat, or take more chips (--find_batch searches)",
    )


def find_batch(config: FrozenConfigDict, topology: str) -> tuple[FrozenConfigDict, dict[str, Any]]:
    """Finds the largest batch that fits, to within 6 %, by compiling several.

    The memory of one batch does not predict that of another: near the limit the compiler trades
    time for memory, and for a program that does not fit it reports the need before that trade.

    Args:
      config: The checked config of the run.
      topology: The chip and the shape of the slice.

    Returns:
      The config with that batch, and the measurements of its step.

    Raises:
      UserError: No batch fits.
    """
    described = chips.parse(topology)
    unit, available = described.size * config.train.microbatches, described.chip.hbm_bytes
    fitting, too_large, needs = 0, 2**20 // unit + 1, 0  # Batches count in units.
    best: tuple[FrozenConfigDict, dict[str, Any]] | None = None
    batch = max(1, config.train.batch_size // unit)
    while too_large - fitting > max(1, fitting // 16):
        config = overrides.changed(config, {"train.batch_size": batch * unit})
        measured = compile_step(config, topology)
        needs = measured.get("needs") or measured["memory"]["total"]
        verdict = ", too much" if "needs" in measured else ""
        print(f"batch {batch * unit}: {gib(needs)} GiB a chip{verdict}", flush=True)
        if "needs" in measured:
            too_large = batch
        else:
            fitting, best = batch, (config, measured)
        batch = round(fitting * min(2.0, max(1.15, 0.95 * available / needs)))
        if batch >= too_large or batch <= fitting:
            batch = (fitting + too_large) // 2
    if best is None:
        raise does_not_fit(config, topology, needs)
    return best


def plan(config: FrozenConfigDict, topology: str, measured: dict[str, Any]) -> dict[str, Any]:
    """The plan, as --json writes it: memory, arithmetic, traffic, and the time at the roofline.

    Args:
      config: The checked config of the run.
      topology: The chip and the shape of the slice.
      measured: The measurements of `compiled.measure`.

    Reference: Williams et al. 2009, "Roofline" (doi 10.1145/1498765.1498785).
    """
    chip, count = chips.parse(topology).chip, measured["chips"]
    seconds = {
        "arithmetic": measured["flops"] / chip.flops,
        "memory": measured["hbm_bytes"] / chip.hbm_bandwidth,
        "network": sum(_network_bytes(c, count) for c in measured["collectives"])
        / chip.ici_bandwidth,
    }
    bound_by = max(seconds, key=lambda key: seconds[key])
    images_per_second = config.train.batch_size / seconds[bound_by]
    # The bytes of a host's batch: of two in memory, one is sent while the step of the other runs.
    sent = measured["memory"]["images"] / 2 * count / measured["hosts"]
    return {
        "topology": topology,
        "chip": topology.partition(":")[0],
        "chips": count,
        "hosts": measured["hosts"],
        "batch_size": config.train.batch_size,
        "flops_per_chip": measured["flops"],
        "analytic_flops_per_chip": measured["analytic_flops"],
        "hbm_bytes_per_chip": measured["hbm_bytes"],
        "memory_per_chip": {**measured["memory"], "available": chip.hbm_bytes},
        "collectives": measured["collectives"],
        "host_bytes_per_second_needed": sent / seconds[bound_by],
        "seconds": seconds,
        "step_seconds": seconds[bound_by],
        "bound_by": bound_by,
        "images_per_second": images_per_second,
        "hours": (hours := parts.schedule(config).total_steps * seconds[bound_by] / 3600),
        "chip_hours": hours * count / chip.devices,
        "host_views_per_second_needed": inputs.views(config).count
        * images_per_second
        / measured["hosts"],
    }


def _network_bytes(collective: dict[str, Any], chips: int) -> float:
    """The bytes that a chip sends in a ring: an all-reduce passes all data twice, others once."""
    passes = 2 if collective["kind"] == "all-reduce" else 1
    return passes * collective["bytes"] * (chips - 1) / chips


def in_words(
    config: FrozenConfigDict, topology: str, planned: dict[str, Any], measured: dict[str, Any]
) -> str:
    """The plan as lines of text."""
    memory, seconds = planned["memory_per_chip"], planned["seconds"]
    model, batch = config.model, planned["batch_size"]
    moved = (
        f"{c['count']} {c['kind']} of {c['bytes'] / 1e6:.1f} MB" for c in planned["collectives"]
    )
    rows = {
        "run": f"ResNet-{model.depth} x{model.width:g} at {config.data.image_size} px in "
        f"{model.dtype}, batch {batch} ({batch // planned['chips']} images a chip)",
        "slice": f"{topology}: {planned['chips']} {_counted(topology)}, {planned['hosts']} hosts",
        "memory": f"{gib(memory['total'])} of {gib(memory['available'])} GiB a chip: parameters "
        f"{gib(memory['params'])}, optimizer {gib(memory['optimizer'])}, activations "
        f"{gib(memory['activations'])}, two batches of images {gib(memory['images'])}",
        "arithmetic": f"{planned['flops_per_chip'] / 1e12:.2f} TFLOP a chip and step, "
        f"{arithmetic_in_words(config, planned)}",
        "HBM traffic": f"{planned['hbm_bytes_per_chip'] / 1e9:.1f} GB a chip and step",
        "collectives": ", ".join(moved) or "none",
        "transfer": f"{memory['images'] / 2e6:.1f} MB of images a chip and step, sent while the "
        f"step before runs: {planned['host_bytes_per_second_needed'] / 1e9:.2f} GB/s a host",
        "step, at best": f"{1e3 * planned['step_seconds']:.1f} ms, bound by {planned['bound_by']} ("
        + ", ".join(f"{key} {1e3 * value:.1f} ms" for key, value in seconds.items())
        + ")",
        "run, at best": f"{planned['images_per_second']:,.0f} images/s, "
        f"{parts.schedule(config).total_steps} steps in {planned['hours']:.2f} h: "
        f"{planned['chip_hours']:.2f} chip-hours",
    }
    return "\n".join(f"{key:<14}{value}" for key, value in rows.items())


def _counted(topology: str) -> str:
    """What a plan counts as chips, in words."""
    devices = chips.parse(topology).chip.devices
    return "chips" if devices == 1 else f"devices, {devices} a chip, each counted as a chip here"


def arithmetic_in_words(config: FrozenConfigDict, planned: dict[str, Any]) -> str:
    """The ratio of the arithmetic to the analytic count, with the reasons where it is high."""
    ratio = planned["flops_per_chip"] / planned["analytic_flops_per_chip"]
    text = f"{ratio:.3f} of the analytic count"
    if ratio <= UNEXPLAINED:
        return text
    reasons = []
    if config.train.microbatches > 1 and config.objective.name == "contrastive":
        reasons.append("microbatches take a forward pass more (+1/3)")
    if config.model.remat != "none":
        reasons.append(f"model.remat={config.model.remat} computes the forward pass again (+1/3)")
    reasons.append("batch norm, relu and the update are not in the analytic count")
    reasons.append("the compiler may recompute where memory is short")
    return f"{text}: {'; '.join(reasons)}"


def input_in_words(planned: dict[str, Any], views: float, *, given: bool) -> str:
    """A line that says whether the hosts can feed the chips.

    Args:
      planned: The plan.
      views: The number of augmented views that a host makes in a second.
      given: Whether that number was given, not measured.
    """
    needed = planned["host_views_per_second_needed"]
    source = "given" if given else f"measured on this machine's {os.cpu_count()} cores"
    verdict = (
        "enough"
        if views >= needed
        else f"too few: the input would be {needed / views:.1f}x too slow"
    )
    return f"{'input':<14}{needed:,.0f} views/s a host needed, {views:,.0f} {source}: {verdict}"


def measure_views(config: FrozenConfigDict) -> float:
    """The number of augmented views that this machine makes of synthetic JPEGs in a second."""
    size = config.data.image_size
    shape = {"width": 500, "height": 375} if size > 64 else {"width": size, "height": size}
    photos = synthetic.Photos(2**20, **shape, channels=config.data.channels)
    source = sources.readable(config, photos)
    order = inputs.order(config, len(source), 64)
    batches = inputs.train_batches(
        config, source, rows=np.arange(64), start_step=0, stop_step=2**30, in_order=order
    )
    images, _ = rehearsal.rate(batches, MEASURED_SECONDS)
    assert images is not None
    return inputs.views(config).count * images


def gib(count: float) -> str:
    """A number of bytes in GiB.

    >>> gib(3 * 2**29)
    '1.50'
    """
    return f"{count / 2**30:.2f}"


if __name__ == "__main__":
    main()

"""Checks that the train step on all devices is the step on one, or computes a run's steps again.

    simclr-verify --config=configs/cifar10.py [--devices=8] [--config.key=value …]
    simclr-verify --run=RUN [--step=K --steps=N]

The first runs one update of the config's model, loss and optimizer on random images, on one device
and split over all of them, and compares the loss, the gradients, the update and the batch-norm
statistics. How much rounding may change is measured: by the same update on one device with the
batch in another order.

The second computes steps of a run again, from the checkpoint before step K, and compares the rows
of metrics.jsonl and the arrays of the next checkpoint: bit for bit with the versions and the
hardware that the run had, else to rounding. It writes nothing into the run.

Exit status 0: all agrees; 1: it does not.
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from etils import epy
from ml_collections import ConfigDict

from simclr_jax import cli
from simclr_jax.config import overrides
from simclr_jax.errors import DifferenceError, UserError

with epy.lazy_imports():  # --help, most refusals and the answer to Ctrl-C need none of these.
    import jax
    import jax.numpy as jnp
    import optax

    from simclr_jax import mesh as meshes
    from simclr_jax import optim, processes
    from simclr_jax import state as states
    from simclr_jax.config import constraints, inputs, parts
    from simclr_jax.objectives import microbatches
    from simclr_jax.run import recorded, replay, teacher
    from simclr_jax.run import sabotage as planted

IMAGES_PER_DEVICE = 4  # The default number of images of a microbatch on a device.
ORDERS = 3  # The number of permutations of the batch that the floor is measured with.
ALLOWED = 4.0  # The largest difference that passes, as a multiple of the floor.
STEP = ("devices", "images_per_device", "sabotage")  # The flags of a comparison of devices.
REPLAY = ("step", "steps", "data_dir")  # The flags of a replay, besides --run.

Array = np.ndarray
Quantities = dict[str, dict[str, Array]]  # The arrays by kind and then by name.


def define(values: flags.FlagValues) -> None:
    """Defines the flags of simclr-verify, besides --config, in `values`."""
    flags.DEFINE_integer(
        "devices", None, "mock this many on CPU; None: use all there are", flag_values=values
    )
    flags.DEFINE_integer(
        "images_per_device", IMAGES_PER_DEVICE, "of a microbatch", flag_values=values
    )
    flags.DEFINE_string(
        "sabotage",
        None,
        f"plant a bug, to see it found: {', '.join(planted.SABOTAGE)}",
        flag_values=values,
    )
    flags.DEFINE_string("run", None, "of this run compute steps again", flag_values=values)
    flags.DEFINE_integer(
        "step", None, "the first to check; after the last checkpoint but one", flag_values=values
    )
    flags.DEFINE_integer("steps", None, "to check; up to the next checkpoint", flag_values=values)
    flags.DEFINE_string(
        "data_dir", None, "where the run's images are now; where they were", flag_values=values
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs simclr-verify on a command line (None: that of the process); exits with its status."""

    argv = sys.argv[1:] if argv is None else list(argv)
    replays = any(re.match(r"--?run(=|$)", argument) for argument in argv)
    others = STEP if replays else REPLAY

    def work(values: flags.FlagValues, config: ConfigDict | None = None) -> None:
        for name in others:
            if values[name].present:
                raise UserError(f"--{name}: only {'with' if name in REPLAY else 'without'} --run")
        if config is None:
            replay.replay(values.run, **{name: values[name].value for name in REPLAY})
            return
        verify(
            config,
            devices=values.devices,
            images_per_device=values.images_per_device,
            sabotage=values.sabotage,
        )

    sys.exit(cli.run(work, doc=__doc__, define=define, argv=argv, takes_config=not replays))


def verify(
    config: ConfigDict, *, devices: int | None, images_per_device: int, sabotage: str | None
) -> None:
    """Compares the step on all devices with that on one, and prints a table and a verdict.

    Args:
      config: The config of a run.
      devices: The number of CPU devices to mock; None: all devices that there are.
      images_per_device: The number of images of a microbatch on a device, at least 2.
      sabotage: The name of a bug of `sabotage.SABOTAGE` to plant; None: none.

    Raises:
      UserError: There is one device, or a flag or a key is at fault.
      DifferenceError: The steps differ by more than rounding.
    """
    known = planted.of_objective(config.objective.name)
    if sabotage is not None and sabotage not in known:
        raise UserError(
            f"--sabotage={sabotage}: must be one of {', '.join(known)} for "
            f"objective.name={config.objective.name}"
        )
    if images_per_device < 2:
        raise UserError(f"--images_per_device={images_per_device}: must be at least 2")
    whole, one = open_meshes(devices)
    batch_size = whole.size * config.train.microbatches * images_per_device
    config = overrides.changed(
        config,
        {
            "data.name": config.data.name or "synthetic",
            "data.num_examples": config.data.num_examples or 10 * batch_size,
            "data.num_classes": 10 if config.data.num_classes is None else config.data.num_classes,
            "train.batch_size": batch_size,
        },
    )
    constraints.check_run(config, devices=whole.size)
    config = teacher.with_classes(config)

    batch = synthetic_batch(config)
    processes.say(
        f"{whole.size} {whole.devices.flat[0].device_kind} devices against one, "
        f"{config.train.batch_size} images of {config.data.image_size} px, ResNet-"
        f"{config.model.depth} x{config.model.width:g} in {config.model.dtype}, "
        f"{config.optim.name}" + (f", with {sabotage} planted" if sabotage else "")
    )
    # With TF32 or bfloat16 passes, the algorithms chosen for two batch sizes would differ by more
    # than a wrong order of summation does; full float32 products keep the floor low.
    with jax.default_matmul_precision("highest"):
        alone = Update(config, one)
        expected = alone(batch)
        floor = noise(alone, batch, expected, config.train.microbatches)
        together = Update(config, whole, planted.SABOTAGE[sabotage] if sabotage else None)
        found = together(batch)
    report(compare(expected, found), floor)


def open_meshes(devices: int | None) -> tuple[jax.sharding.Mesh, jax.sharding.Mesh]:
    """A mesh of all devices (or of `devices` mocked on CPU), and one of one local device."""
    if devices is not None:
        if devices < 2:
            raise UserError(f"--devices={devices}: must be at least 2")
        jax.config.update("jax_platforms", "cpu")
        try:
            jax.config.update("jax_num_cpu_devices", devices)
        except RuntimeError as error:  # JAX is already initialised.
            if jax.device_count() < devices:
                raise UserError(f"--devices={devices}: JAX has {jax.device_count()}") from error
    whole = meshes.make(jax.devices()[:devices])
    if whole.size == 1:
        raise UserError("--devices: there is one device; mock several on CPU with --devices=8")
    return whole, meshes.make(jax.local_devices()[:1])


def synthetic_batch(config: ConfigDict) -> dict[str, Array]:
    """A batch of noise images, which all differ in mean and contrast so that none are alike."""
    rng = np.random.default_rng(config.seed)
    n, size, views = config.train.batch_size, config.data.image_size, inputs.views(config).count
    channels = config.data.channels
    mean = rng.uniform(0.2, 0.8, (n, views, 1, 1, channels))
    noise = rng.uniform(-1, 1, (n, views, size, size, channels))
    noise *= rng.uniform(0.05, 0.2, (n, views, 1, 1, 1))
    image = np.clip(mean + noise, 0, 1)
    if config.data.transfer_dtype == "uint8":
        image = np.round(image * 255)
    label = rng.integers(0, max(1, config.data.num_classes), n).astype(np.int32)
    if config.objective.name == "distill":
        label[::3] = -1  # Labels are there for a part of the images, as in a run.
    return {
        "image": image.astype(config.data.transfer_dtype),
        "label": label,
        **inputs.device_numbers(config, n),
        "blur_sigma": rng.uniform(0.1, 2.0, (n, views)).astype(np.float32),
    }


class Recorded(NamedTuple):
    """The state of `recorder`: the last gradients, a tree like the parameters."""

    gradient: Any


def recorder() -> optax.GradientTransformation:
    """A transformation that passes gradients on and keeps the last ones in its state."""
    return optax.GradientTransformation(
        lambda params: Recorded(jax.tree.map(jnp.zeros_like, params)),
        lambda grads, state, params=None: (grads, Recorded(grads)),
    )


class Update:
    """One update on a mesh at the peak learning rate: its loss, its gradients and its changes.

    Args:
      config: The config of the run.
      mesh: The mesh to run on.
      sabotage: The function that plants a bug in the objective; None: no bug.
    """

    def __init__(
        self, config: ConfigDict, mesh: jax.sharding.Mesh, sabotage: planted.Sabotage | None = None
    ):
        peak = optim.peak_learning_rate(
            config.optim.lr, config.train.batch_size, config.optim.lr_scaling
        )
        rate = optax.constant_schedule(peak or 0.1)
        optimizer = parts.optimizer(config, rate)
        optimizer = optimizer._replace(tx=optax.chain(recorder(), optimizer.tx))
        objective = parts.objective(config, mesh, teacher.random(config, mesh, randomize_scales))
        self._objective = sabotage(objective, mesh.size) if sabotage else objective
        self._mesh, self._rows = mesh, meshes.local_rows(mesh, config.train.batch_size)
        first = partial(initial, config, optimizer.tx)
        self._placed = states.shardings(first, mesh, divide=config.optim.shard_state)
        self._step = parts.jitted(parts.step(config, optimizer, mesh), mesh, self._placed)
        state = states.on_mesh(first, mesh, self._placed)
        self._state = jax.tree.map(meshes.on_host, state)  # The step donates its state.

    def __call__(self, batch: Mapping[str, Array]) -> Quantities:
        """Runs the update on a global batch, always from the same state."""
        own = {key: value[self._rows] for key, value in batch.items()}
        state = jax.device_put(self._state, self._placed)
        after, metrics = self._step(state, meshes.put(own, self._mesh), self._objective)
        after, before = jax.tree.map(meshes.on_host, after), self._state
        return {
            "loss": {"loss": np.asarray(metrics["loss"])},
            "gradients": by_name(after.opt_state[0].gradient),
            "update": by_name(jax.tree.map(np.subtract, after.params, before.params)),
            "batch-norm statistics": by_name(
                jax.tree.map(np.subtract, after.batch_stats, before.batch_stats)
            ),
        }


def initial(config: ConfigDict, tx: optax.GradientTransformation) -> states.TrainState:
    """The state before the first update, with random batch-norm scales."""
    state = states.initialize(
        parts.model(config), tx, seed=config.seed, image_size=config.data.image_size
    )
    return dataclasses.replace(state, params=randomize_scales(state.params))


def randomize_scales(params: Any) -> Any:
    """Draws batch-norm scales from U(0.5, 1.5): scales of 0 would hide most of the network."""

    def draw(path: Any, leaf: jax.Array) -> jax.Array:
        if path[-1].key != "scale":
            return leaf
        key = jax.random.key(sum(map(ord, jax.tree_util.keystr(path))))
        return jax.random.uniform(key, leaf.shape, leaf.dtype, 0.5, 1.5)

    return jax.tree_util.tree_map_with_path(draw, params)


def by_name(tree: Any) -> dict[str, Array]:
    """The leaves of a tree of dicts by path.

    >>> by_name({"encoder": {"stem": 1, "norm": 2}})
    {'encoder/norm': 2, 'encoder/stem': 1}
    """
    return {
        "/".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


class Difference(NamedTuple):
    """The largest relative difference of any array, in the L2 norm, and the name of that array."""

    size: float
    name: str


def compare(expected: Quantities, found: Quantities) -> dict[str, Difference]:
    """The largest difference of each kind of quantity, relative to what is expected."""

    def relative(a: Array, b: Array) -> float:
        a, b = a.astype(np.float64), b.astype(np.float64)
        difference = float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(a)), 1e-30)
        return difference if math.isfinite(difference) else math.inf

    return {
        kind: max(Difference(relative(a, found[kind][name]), name) for name, a in arrays.items())
        for kind, arrays in expected.items()
    }


def noise(
    alone: Update, batch: Mapping[str, Array], expected: Quantities, count: int
) -> dict[str, float]:
    """The floor: the relative difference that the batch's order makes to each kind of quantity.

    Each image stays in its one of `count` microbatches, on which batch norm depends.
    """
    floor = dict.fromkeys(expected, recorded.ROUNDING)
    for seed in range(ORDERS):
        order = microbatches.shuffled_within(len(batch["label"]), count, seed)
        permuted = alone({key: value[order] for key, value in batch.items()})
        for kind, difference in compare(expected, permuted).items():
            floor[kind] = max(floor[kind], difference.size)
    return floor


def report(differences: dict[str, Difference], floor: dict[str, float]) -> None:
    """Prints the comparison; raises DifferenceError where a difference is more than rounding."""
    processes.say(f"{'largest difference of':<24}{'found':>10}{'floor':>10}{'allowed':>10}")
    failed = []
    for kind, (size, name) in differences.items():
        allowed = ALLOWED * floor[kind]
        ok = size <= allowed
        processes.say(
            f"{kind:<24}{size:>10.1e}{floor[kind]:>10.1e}{allowed:>10.1e}  "
            f"{'ok' if ok else 'FAILED'}" + (f"  in {name}" if name != kind else "")
        )
        if not ok:
            failed.append(f"{kind} by {size:.1e} where {allowed:.1e} is rounding")
    if failed:
        raise DifferenceError(f"the devices' step is not the one-device step: {'; '.join(failed)}")
    processes.say("verdict: all devices together take the step that one would, to rounding")


if __name__ == "__main__":
    main()

"""The first state of a run: its seed's, with the weights of another run where they fit."""

import dataclasses
from typing import Any, NamedTuple

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import FrozenConfigDict

from simclr_jax import processes
from simclr_jax import state as states
from simclr_jax.config import overrides, parts, record
from simclr_jax.config.parts import Parts
from simclr_jax.data.fingerprint import Classes, other_classes
from simclr_jax.errors import UserError
from simclr_jax.models.heads import layer_index
from simclr_jax.models.resnet import stem_for
from simclr_jax.run import network, workdir
from simclr_jax.state import TrainState
from simclr_jax.store import checkpoint

_NAMES = ("config.init.run", "config.init.step")
_ENCODER = ("depth", "width", "sk_ratio", "se_ratio")  # The keys that make another encoder.

Path = tuple[str, ...]  # The path of an array, which begins with 'params' or 'batch_stats'.
Shapes = dict[Path, tuple[int, ...]]  # The shapes of the arrays of a network by their paths.


def with_step(
    config: FrozenConfigDict, built: Parts, folder: str | None, classes: Classes | None = None
) -> FrozenConfigDict:
    """The config with the step of init.run, which a run that has begun keeps.

    Args:
      config: The config of the run.
      built: The parts of the run.
      folder: The folder of the run, which need not exist; None: there is none.
      classes: The names of its classes; None where they are not known.

    Raises:
      UserError: A run that has not begun cannot start from init.run.
      FileError: The checkpoint of init.run is damaged.
    """
    if config.init.run is None:
        return config
    stored = workdir.described(folder)
    if stored is None:
        return overrides.changed(config, {"init.step": Origin.fitting(config, built, classes).step})
    if config.init.step is None:
        return overrides.changed(config, {"init.step": record.from_json(stored).init.step})
    return config


def first_state(
    config: FrozenConfigDict, built: Parts, classes: Classes | None = None
) -> TrainState:
    """The state before the first update, on the devices; says what it took of init.run.

    Args:
      config: The config of the run.
      built: The parts of the run.
      classes: The names of its classes; None where they are not known.

    Raises:
      UserError: The run cannot start from init.run.
      FileError: The checkpoint of init.run is damaged.
    """
    if config.init.run is None:
        return built.first()
    origin = Origin.fitting(config, built, classes)
    weights = network.Network.trained(origin.reader, origin.step).variables
    state = built.first()
    found = flatten_dict(weights)
    part = unflatten_dict({path: found[path] for path in origin.taken})
    whole = states.merged({"params": state.params, "batch_stats": state.batch_stats}, part)
    processes.say(f"init.run={config.init.run}: {origin.in_words}")
    return dataclasses.replace(state, **whole)


class Origin(NamedTuple):
    """The checkpoint of another run that a run starts from.

    Attributes:
      reader: The checkpoints of that run.
      step: The step of the checkpoint.
      taken: The paths of the arrays that are taken from it.
      in_words: What is taken, and what is not, as text.
    """

    reader: checkpoint.Reader
    step: int
    taken: list[Path]
    in_words: str

    @classmethod
    def fitting(cls, config: FrozenConfigDict, built: Parts, classes: Classes | None) -> "Origin":
        """The checkpoint that init.run and init.step name, and what of it fits.

        Args:
          config: The config of the run that starts from it.
          built: The parts of that run.
          classes: The names of its classes; None where they are not known.

        Raises:
          UserError: There is no such checkpoint, or it is of another encoder.
          FileError: The checkpoint is damaged.
        """
        name, run = _NAMES[0], config.init.run
        reader = checkpoint.Reader(network.open_run(run, name))
        step = network.find_step(reader, run, config.init.step, _NAMES)
        described = reader.config(step)
        theirs = record.from_json(described)
        shapes = _shapes(config, parts.model(config)), _shapes(theirs, parts.model(theirs))
        reason = classifier_reason(config, theirs)
        named = record.classes_of(described)
        if reason is None and (other := other_classes(classes, named)):
            reason = f"{other} there"
        taken = fitting_paths(*shapes, classifier=reason is None)
        if other := other_encoder(config, theirs):
            raise UserError(f"{name}={run}: holds another encoder ({other})")
        told = in_words(*shapes, taken, step=step, classifier=reason)
        here, there = config.data.channels, theirs.data.channels
        if here != there:
            told += f"; its images have {there} channel{'s' * (there > 1)}, and these {here}"
        return cls(reader, step, taken, told)


def _shapes(config: FrozenConfigDict, model: Any) -> Shapes:
    """The shapes of the network of a run."""
    variables = jax.eval_shape(
        lambda: states.initialize_model(model, seed=config.seed, image_size=config.data.image_size)
    )
    return {path: leaf.shape for path, leaf in flatten_dict(variables).items()}


def fitting_paths(ours: Shapes, theirs: Shapes, *, classifier: bool) -> list[Path]:
    """The paths of our arrays that have the same shape in the other network.

    Args:
      ours: The shapes of our arrays by their path.
      theirs: Those of the other network.
      classifier: Whether the classifier's may be among them.
    """
    return [
        path
        for path, shape in ours.items()
        if theirs.get(path) == shape and (classifier or path[1] != "classifier")
    ]


def other_encoder(config: FrozenConfigDict, theirs: FrozenConfigDict) -> str:
    """What shows that another run has another encoder, in words; nothing if it has ours.

    Its stem may be another one for views of another size, not for views of the same.
    """
    other = [key for key in _ENCODER if config.model[key] != theirs.model[key]]
    size = config.data.image_size
    ours, others = (stem_for(each.model.stem, size) for each in (config, theirs))
    if size == theirs.data.image_size and ours != others:
        other.append("stem")
    found = (f"model.{key}={theirs.model[key]} there and {config.model[key]} here" for key in other)
    return ", ".join(found)


def classifier_reason(config: FrozenConfigDict, theirs: FrozenConfigDict) -> str | None:
    """Why the classifier of another run does not fit, in words; None where it may.

    The online classifier of a pretraining has seen all of its labels, so fine-tuning with few of
    them begins with a new one.
    """
    here, there = map(parts.classes, (config, theirs))
    if here != there:
        return f"{here or 'no'} classes here, {there or 'none'} there"
    layers = [c.model.classifier_layer for c in (config, theirs)]
    if layer_index(layers[0]) != layer_index(layers[1]):
        return f"on {layers[0]} here, on {layers[1]} there"
    if config.objective.name != theirs.objective.name:
        return f"trained by objective.name={theirs.objective.name} there"
    if config.data.name != theirs.data.name:
        return f"of {theirs.data.name} there"
    return None


def in_words(
    ours: Shapes, theirs: Shapes, taken: list[Path], *, step: int, classifier: str | None
) -> str:
    """What is taken of another network, and what is not, as text.

    Args:
      ours: The shapes of our arrays by their path.
      theirs: Those of the other network.
      taken: The paths of those that are taken.
      step: The step of the checkpoint.
      classifier: Why the classifier does not fit; None where it may.
    """

    def modules(found: set[Path]) -> str:
        names = sorted("/".join(path) for path in found if path[0] != "classifier")
        if any(path[0] == "classifier" for path in found):
            names.insert(0, f"classifier ({classifier})")
        return ", ".join(names)

    text = f"{len(taken)} arrays taken from step {step}"
    if left := modules({path[1:3] for path in ours if path not in taken}):
        text += f"; left as initialised: {left}"
    if unused := modules({path[1:3] for path in theirs} - {path[1:3] for path in ours}):
        text += f"; not used: {unused}"
    return text

"""The teacher of a distillation: the network of another run, which is not trained."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict, FrozenConfigDict

from simclr_jax import mesh as meshes
from simclr_jax import processes
from simclr_jax import state as states
from simclr_jax.config import overrides, parts, record, rules
from simclr_jax.data.fingerprint import Classes, other_classes
from simclr_jax.errors import UserError
from simclr_jax.models.resnet import stem_for
from simclr_jax.models.simclr import SimCLR
from simclr_jax.objectives.distilled import Teacher
from simclr_jax.run import network
from simclr_jax.store import checkpoint, digests

KEY = "objective.teacher"
_INSTEAD = "; with data.num_classes=0 the images' labels are left out, and its classes count"
_NO_CLASSIFIER = "the network of this run has no classifier"


class Loaded(NamedTuple):
    """The teacher of a run, and by what it is known again.

    Attributes:
      teacher: The network with its weights, on all devices; None for an objective without one.
      fingerprint: Those of its "run", its "step" and the digest of its "weights", as JSON, by the
        name "teacher"; empty without one.
    """

    teacher: Teacher | None
    fingerprint: record.Fingerprints


def with_classes(config: FrozenConfigDict) -> FrozenConfigDict:
    """The config with the number of the teacher's classes, where the images have no labels.

    Args:
      config: The config of a run; data.num_classes must be known.

    Raises:
      UserError: There is no such run, or it has no classifier.
    """
    objective = config.objective
    if objective.name != "distill" or config.data.num_classes != 0:
        return config
    if objective.teacher is None and objective.classes is not None:
        return config
    classes = parts.classes(record.from_json(record.read(_open(config))))
    if not classes:
        raise _wrong(config, _NO_CLASSIFIER)
    return overrides.changed(config, {"objective.classes": classes})


def load(
    config: ConfigDict, described: Mapping[str, Any], classes: Classes | None = None
) -> Loaded:
    """Loads the teacher of a run.

    It is the newest checkpoint of the teacher's run, or, for a run that goes on, the one that the
    run began with.

    Args:
      config: The config of the run; data.num_classes must be known.
      described: The description of the run so far; empty: it begins.
      classes: The names of the images' classes; None where they are not known.

    Raises:
      UserError: There is no such run, it has no checkpoint, or it cannot teach these classes.
      FileError: Its checkpoint is damaged.
    """
    if config.objective.name != "distill":
        return Loaded(None, {})
    root = _open(config)
    reader = checkpoint.Reader(root)
    before = described.get("fingerprints", {}).get("teacher", {}).get("step")
    known = processes.from_primary(reader.steps())
    step = network.find_step(
        reader,
        config.objective.teacher,
        before if before in known else None,
        (f"config.{KEY}",) * 2,
    )
    taught = reader.config(step)
    _check(config, record.from_json(taught))
    named = record.classes_of(taught)
    _check_names(config, classes, named)
    found = network.Network.trained(reader, step)
    weights = digests.of_json(digests.of_arrays(found.variables))
    fingerprint = {"run": str(root), "step": step, "weights": weights}
    if named is not None:
        fingerprint["classes"] = named
    return Loaded(Teacher(found.model, found.variables), {"teacher": fingerprint})


def again(config: ConfigDict, described: Mapping[str, Any]) -> Teacher | None:
    """The teacher that a run had, or None for an objective without one.

    Args:
      config: The config of the run.
      described: The description of the run.

    Raises:
      UserError: Its weights are no longer those that the run had, or there is no such run.
      FileError: Its checkpoint is damaged.
    """
    teacher, now = load(config, described, record.classes_of(described))
    if changed := record.changed_images(now, dict(described)):
        raise _wrong(config, f"changed since this run are {', '.join(changed)}")
    return teacher


def untrained(config: ConfigDict) -> tuple[SimCLR, Callable[[], Any]]:
    """A network like the teacher's, with random weights, for a step that is only tried.

    Args:
      config: The config of a run; without a teacher, it is one like the student.

    Returns:
      The network, and a function without arguments that makes its weights.

    Raises:
      UserError: There is no such run, or it cannot teach these classes.
    """
    of = config
    if config.objective.teacher is not None:
        of = record.from_json(record.read(_open(config)))
        _check(config, of)
    model = parts.model(of)

    def initial() -> Any:
        return states.initialize_model(
            model, seed=config.seed + 1, image_size=config.data.image_size
        )

    return model, initial


def random(config: ConfigDict, mesh: Mesh, change: Callable[[Any], Any]) -> Teacher | None:
    """A teacher with random weights on a mesh; None for an objective without one.

    Args:
      config: The config of a run.
      mesh: The mesh of the devices.
      change: A function that changes the parameters.
    """
    if config.objective.name != "distill":
        return None
    model, initial = untrained(config)
    variables = states.on_mesh(initial, mesh)
    params = jax.device_put(change(variables["params"]), meshes.replicated(mesh))
    return Teacher(model, {**variables, "params": params})


def shapes(config: ConfigDict, mesh: Mesh) -> Teacher | None:
    """The shapes of a teacher's weights on a mesh; None for an objective without one."""
    if config.objective.name != "distill":
        return None
    model, initial = untrained(config)
    return Teacher(model, states.abstract(initial, mesh))


def _open(config: ConfigDict) -> epath.Path:
    """The folder of the teacher's run."""
    if config.objective.teacher is None:
        raise _wrong(config, "objective.name='distill' needs the run of a teacher")
    return network.open_run(config.objective.teacher, f"config.{KEY}")


def _check(config: ConfigDict, teacher: ConfigDict) -> None:
    """Checks that a teacher says something of the student's classes and images.

    Args:
      config: The config of the student's run.
      teacher: That of the teacher's run.
    """
    classes, taught = parts.classes(config), parts.classes(teacher)
    if not taught:
        raise _wrong(config, _NO_CLASSIFIER)
    if taught != classes:
        raise _wrong(
            config, f"its classifier has {taught} classes, and the images have {classes}{_INSTEAD}"
        )
    channels, seen = config.data.channels, teacher.data.channels
    if seen != channels:
        raise _wrong(config, f"it takes images of {seen} channels, and data.channels={channels}")
    size, trained_at = config.data.image_size, teacher.data.image_size
    if stem_for(teacher.model.stem, trained_at) == "imagenet" and size < 32:
        raise rules.wrong("data.image_size", size, "at least 32 for the teacher's imagenet stem")
    if size != trained_at:
        processes.say(f"the teacher was trained on images of {trained_at} px, and sees {size} px")


def _check_names(config: ConfigDict, here: Classes | None, there: Classes | None) -> None:
    """Checks that labelled images have the classes of the teacher, in its order.

    Args:
      config: The config of the student's run.
      here: The names of the images' classes; None where they are not known.
      there: Those of the teacher's.
    """
    if not config.data.num_classes:
        return
    if other := other_classes(here, there):
        raise _wrong(config, f"its classifier has {other}{_INSTEAD}")
    if here is None or there is None:
        whose = "the images have" if here is None else "the run of the teacher has"
        processes.say(f"{whose} no names of classes: they are compared by their number alone")


def _wrong(config: ConfigDict, reason: str) -> UserError:
    return UserError(f"config.{KEY}={config.objective.teacher!r}: {reason}")

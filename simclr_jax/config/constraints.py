"""Checks the config of a training run: each key, and the keys that constrain each other."""

from ml_collections import ConfigDict

from simclr_jax.augment.draws import one_a_view
from simclr_jax.config import rules, wish
from simclr_jax.config.overrides import keys
from simclr_jax.errors import UserError
from simclr_jax.losses import ONE_VIEW
from simclr_jax.models.heads import count_layers, layer_index
from simclr_jax.models.resnet import FROZEN, stem_for


def check_keys(config: ConfigDict) -> None:
    """Checks that a config has every key of a training run.

    Raises:
      UserError: A key is missing.
    """
    missing = rules.RUN.keys() - keys(config).keys()
    if missing:
        raise UserError(
            f"--config: lacks {', '.join(sorted(missing))}; is it a training run's? "
            "Begin it with simclr_jax.config.default.get_config()"
        )


def check_run(config: ConfigDict, *, devices: int) -> None:
    """Checks the config of a training run: each key, then those that constrain each other.

    Args:
      config: The config.
      devices: The number of devices.

    Raises:
      UserError: A key is missing, or a value is not allowed.
    """
    check_keys(config)
    wish.check_closed(config)
    rules.check(config, rules.RUN, devices=devices)
    if config.data.name is None:
        raise rules.wrong("data.name", None, rules.RUN["data.name"].allowed)
    batch_size, microbatches = config.train.batch_size, config.train.microbatches
    if batch_size % (devices * microbatches):
        raise rules.wrong(
            "train.microbatches",
            microbatches,
            f"a divisor of the {batch_size // devices} images of a device's share of the batch",
        )
    model, size = config.model, config.data.image_size
    layers = count_layers(model.head, model.head_layers)
    if layer_index(model.classifier_layer) > layers:
        raise rules.wrong(
            "model.classifier_layer",
            model.classifier_layer,
            f"a layer of the head's {layers}, or h",
        )
    if stem_for(model.stem, size) == "imagenet" and size < 32:
        raise rules.wrong("data.image_size", size, "at least 32 for the imagenet stem")
    if config.init.step is not None and config.init.run is None:
        raise rules.wrong("init.step", config.init.step, "None without init.run")
    if config.data.channels != 3 and config.augment.policy is not None:
        given, channels = config.augment.policy, config.data.channels
        raise rules.wrong(
            "augment.policy",
            given,
            f"None for data.channels={channels}, for it changes red, green and blue",
        )
    _check_loss(config.loss)
    check_objective(config)
    check_ops(config)


def check_begun(config: ConfigDict, *, devices: int) -> None:
    """Checks the config of a run that begins, but for what it leaves open; see `check_run`."""
    check_run(wish.provisional(config, devices), devices=devices)


def count_views(config: ConfigDict) -> int:
    """The number of views of an image in its batch."""
    return config.data.views or (2 if config.objective.name == "contrastive" else 1)


def check_ops(config: ConfigDict) -> None:
    """Checks that there is one list of operations for all views, or one for each of them.

    Raises:
      UserError: There is another number of lists.
    """
    given, count = config.augment.ops, count_views(config)
    if len(one_a_view(given, count)) != count:
        also = f", or data.views={len(given)}" if config.objective.name != "contrastive" else ""
        views = "view" if count == 1 else "views"
        raise rules.wrong("augment.ops", given, f"one list, or {count} for {count} {views}{also}")


def _check_loss(loss: ConfigDict) -> None:
    """Raises UserError where negatives are mined that cannot be, or of which none can count."""
    if loss.mining == "none":
        return
    if loss.name not in ONE_VIEW:
        raise rules.wrong("loss.mining", loss.mining, f"none for loss.name={loss.name}")
    if loss.name == "margin_triplet" and loss.margin == 0:
        why = f"above 0 for loss.mining={loss.mining}, whose negatives are within the margin"
        raise rules.wrong("loss.margin", loss.margin, why)


def check_objective(config: ConfigDict) -> None:
    """Checks that the objective of a config can be computed of its images.

    Args:
      config: The config; a data.num_classes of None is not checked.

    Raises:
      UserError: The contrastive objective has other than two views, another has no classes, there
        is a teacher and nothing to distill, labels are to count that there are not, or nothing of
        the network is trained.
    """
    all_of_it = config.train.frozen in FROZEN[-2:]
    if all_of_it and config.objective.name == "contrastive" and config.model.head == "none":
        raise rules.wrong("train.frozen", config.train.frozen, "at most stage3 without a head")
    name, views, classes = config.objective.name, config.data.views, config.data.num_classes
    if config.objective.teacher is not None and name != "distill":
        given = config.objective.teacher
        raise rules.wrong("objective.teacher", given, "None without objective.name=distill")
    if name == "contrastive" and views not in (None, 2):
        raise rules.wrong(
            "data.views", views, "2 for objective.name=contrastive, which compares two"
        )
    if config.objective.classes is not None and (name != "distill" or classes):
        given = config.objective.classes
        raise rules.wrong("objective.classes", given, "None but for a distillation without labels")
    if name == "distill" and classes == 0:  # The classes are the teacher's.
        if (given := config.objective.label_weight) > 0:
            raise rules.wrong("objective.label_weight", given, "0, for the images have no labels")
    elif name != "contrastive" and classes is not None and classes < 2:
        these = "of one class" if classes else "without labels"
        raise rules.wrong("objective.name", name, f"contrastive, for the images are {these}")

"""Which features of a TFDS dataset are the image and the label."""

from __future__ import annotations

from typing import Any

import numpy as np
from etils import epy

from simclr_jax import processes
from simclr_jax.data.tfds_labels import Label, OneLabel, SeveralLabels
from simclr_jax.errors import ArgumentError

with epy.lazy_imports():
    import tensorflow_datasets as tfds

# The features of PASCAL VOC that list the classes of all objects of an image, and of those objects
# that are not difficult to recognise.
_DIFFICULT = ("labels", "labels_no_difficult")


def image_key(name: str, info: Any, given: str | None) -> str:
    """The name of the image among a dataset's features.

    Args:
      name: The name of the dataset, for messages.
      info: Its DatasetInfo.
      given: The name that is asked for; None: that of the dataset's supervised_keys, else 'image',
        else the only one.

    Raises:
      ArgumentError: There is no image, or it is unclear which is meant.
    """
    features = flat(info.features)
    images = [
        key
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Image)
        and not isinstance(feature, tfds.features.LabeledImage)  # A mask of classes.
    ]
    named = _supervised(info, 0)
    key = _choose("image_key", given, images, features, named, "image")
    if key is None:
        raise ArgumentError(
            "name", name, f"no feature of it is an image: {_in_words(features) or 'it has none'}"
        )
    if given is None and named not in (None, key):
        processes.say(f"{name}: its {_named(info, named)}, no image; {key!r} is taken (image_key)")
    if (dtype := np.dtype(features[key].np_dtype)) not in (np.uint8, np.uint16):
        reason = f"{key!r} is an image of {dtype}; uint8 and uint16 are read"
        raise ArgumentError("image_key", given, reason)
    return key


def label(name: str, info: Any, given: str | None) -> Label | None:
    """The label among a dataset's features; None: there is none.

    A feature of several labels an image, a `Sequence(ClassLabel)`, is the label only where it is
    asked for.

    Args:
      name: The name of the dataset, for messages.
      info: Its DatasetInfo.
      given: The name that is asked for; None: that of the dataset's supervised_keys, else 'label',
        else the only one.

    Raises:
      ArgumentError: It is unclear which is meant.
    """
    features = flat(info.features)
    labels = [
        key
        for key, feature in features.items()
        if isinstance(feature, tfds.features.ClassLabel) and feature.num_classes
    ]
    several = [key for key in features if classes_of(info, key) and key not in labels]
    if given in several:
        return _several(name, info, given)
    named, listed = _supervised(info, 1), ", ".join(sorted(several))
    if given is None and several and not labels:
        processes.say(
            f"{name}: used without labels; an image can have several of them, in {listed} "
            "(label_key)"
        )
        return None
    candidates = labels if given is None else labels + several
    key = _choose("label_key", given, candidates, features, named, "label")
    if given is None and named not in (None, key):
        instead = f"{key!r} is taken (label_key)" if key else "it is used without labels"
        processes.say(f"{name}: its {_named(info, named)}, no ClassLabel; {instead}")
    return None if key is None else OneLabel(key)


def classes_of(info: Any, key: str) -> Any:
    """The ClassLabel of a feature of one label or several; None for another feature, or no class.

    Args:
      info: The DatasetInfo.
      key: The name of the feature.
    """
    feature = flat(info.features)[key]
    if type(feature) is tfds.features.Sequence:
        feature = feature.feature
    is_label = isinstance(feature, tfds.features.ClassLabel) and feature.num_classes
    return feature if is_label else None


def _several(name: str, info: Any, key: str) -> SeveralLabels:
    """The labels of a feature of several; says where the dataset tells which are difficult."""
    count = int(classes_of(info, key).num_classes)
    if key not in _DIFFICULT or not flat(info.features).keys() >= {*_DIFFICULT}:
        return SeveralLabels((key,), count)
    processes.say(
        f"{name}: a class of which an image has difficult objects alone, by {_DIFFICULT[0]!r} and "
        f"{_DIFFICULT[1]!r}, is neither there nor absent in it"
    )
    return SeveralLabels(_DIFFICULT, count)


def _choose(
    argument: str,
    given: str | None,
    candidates: list[str],
    features: dict[str, Any],
    supervised: Any,
    usual: str,
) -> str | None:
    """The name of the feature to use; None: there is no candidate.

    Which features come first in a dataset that is read without its code differs between processes,
    so their order decides nothing.

    Args:
      argument: The name of the argument that chooses among the candidates.
      given: The value of this argument.
      candidates: The names of the features that are of the right kind.
      features: All features by name.
      supervised: What the dataset's supervised_keys name, of any type.
      usual: The usual name of such a feature.

    Raises:
      ArgumentError: The given feature is none of the candidates, or none is given and there are
        several.
    """
    listed = ", ".join(sorted(candidates)) or f"none in {_in_words(features)}"
    if given is not None:
        if given not in candidates:
            is_what = f"a {type(features[given]).__name__}" if given in features else "no feature"
            raise ArgumentError(argument, given, f"is {is_what} here; it can be {listed}")
        return given
    for key in (supervised, usual):
        if key in candidates:
            return str(key)
    if len(candidates) > 1:
        raise ArgumentError(argument, None, f"must be one of {listed}; which is meant is unclear")
    return candidates[0] if candidates else None


def _supervised(info: Any, position: int) -> Any:
    """The input (0) or the target (1) of the dataset's supervised_keys; None: it has no such."""
    keys = info.supervised_keys
    return keys[position] if keys and isinstance(keys[position], str) else None


def _named(info: Any, key: str) -> str:
    """The feature that the dataset's supervised_keys name, and its kind, for messages."""
    return f"supervised {key!r} is a {type(dict(info.features.items()).get(key)).__name__}"


def flat(features: Any, above: str = "") -> dict[str, Any]:
    """The features by name; one of a group of features is named 'group/feature', as in files."""
    found: dict[str, Any] = {}
    if not isinstance(features, tfds.features.FeaturesDict):  # A dataset of one nameless feature.
        return found
    for key, feature in features.items():
        if isinstance(feature, tfds.features.FeaturesDict):
            found |= flat(feature, f"{above}{key}/")
        else:
            found[above + key] = feature
    return found


def _in_words(features: dict[str, Any]) -> str:
    """The names of features and their kinds, such as 'frames (Video)'."""
    return ", ".join(f"{key} ({type(features[key]).__name__})" for key in sorted(features))

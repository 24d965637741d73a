"""The image and the label among the features of a TFDS dataset."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds

from simclr_jax.data import tfds_keys
from simclr_jax.errors import UserError
from support.sources import said

F = tfds.features
FEATURES = {
    "image": F.Image(),
    "mask": F.Image(shape=(8, 8, 1)),
    "coarse": F.ClassLabel(num_classes=2),
    "label": F.ClassLabel(num_classes=3),
}
NESTED = {
    "frames": F.Sequence(F.Image()),
    "left": F.FeaturesDict({"eye": F.Image()}),
    "classes": F.LabeledImage(labels=3, shape=(8, 8, 1)),
    "boxes": F.Sequence({"label": F.ClassLabel(num_classes=2)}),
    "kind": F.ClassLabel(num_classes=2),
}


def keys(features, supervised=None, image=None, label=None):
    """The image and the label that are chosen, whatever the order of the features."""
    chosen = set()
    for named in (features, dict(reversed(features.items()))):
        info = SimpleNamespace(features=F.FeaturesDict(named), supervised_keys=supervised)
        with said():
            found = tfds_keys.label("set", info, label)
            chosen.add((tfds_keys.image_key("set", info, image), found and found.keys[0]))
    (one,) = chosen
    return one


def without(*names):
    return {key: feature for key, feature in FEATURES.items() if key not in names}


@pytest.mark.parametrize(
    ("features", "given", "chosen"),
    [
        (FEATURES, {"supervised": ("mask", "coarse")}, ("mask", "coarse")),
        (FEATURES, {}, ("image", "label")),
        (FEATURES, {"image": "mask", "label": "coarse"}, ("mask", "coarse")),
        (FEATURES, {"supervised": ({"a": "mask"}, "image")}, ("image", "label")),
        (without("image", "label"), {}, ("mask", "coarse")),
        (without("coarse", "label"), {}, ("image", None)),
        (NESTED, {"supervised": ("left", "boxes")}, ("left/eye", "kind")),
    ],
)
def test_the_image_and_the_label_do_not_depend_on_the_order_of_features(features, given, chosen):
    assert keys(features, **given) == chosen


@pytest.mark.parametrize(
    ("features", "given", "line"),
    [
        ({**without("image"), "b": F.Image()}, {}, "image_key=None: must be one of b, mask;"),
        ({**without("label"), "fine": F.ClassLabel(num_classes=9)}, {}, "must be one of coarse, f"),
        (FEATURES, {"image": "picture"}, "image_key='picture': is no feature here; it can be im"),
        (FEATURES, {"image": "label"}, "image_key='label': is a ClassLabel here; it can be image"),
        (FEATURES, {"label": "image"}, "label_key='image': is a Image here; it can be coarse, l"),
        ({"frames": F.Video(shape=(4, 8, 8, 3))}, {}, "no feature of it is an image: frames (Vid"),
        ({"a": F.Image(shape=(4, 4, 1), dtype=np.float32)}, {}, "'a' is an image of float32; "),
    ],
)
def test_an_unclear_choice_names_the_candidates(features, given, line):
    with pytest.raises(UserError) as error:
        keys(features, **given)
    assert line in str(error.value)


@pytest.mark.parametrize(
    ("features", "supervised", "line"),
    [
        (NESTED, ("left", "boxes"), "supervised 'left' is a FeaturesDict, no image; 'left/eye' is"),
        (NESTED, ("left", "boxes"), "supervised 'boxes' is a Sequence, no ClassLabel; 'kind' is t"),
        (without("coarse", "label"), ("image", "mask"), "Image, no ClassLabel; it is used without"),
    ],
)
def test_what_is_taken_in_place_of_a_supervised_feature_is_said(features, supervised, line, capsys):
    keys(features, supervised)
    assert line in capsys.readouterr().out
    keys(FEATURES, ("mask", "coarse"))
    assert not capsys.readouterr().out

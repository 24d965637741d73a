"""Datasets that TFDS has prepared, read by index in each of its two formats."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core import registered

from simclr_jax.data.fingerprint import cache_key, fingerprint
from simclr_jax.data.tfds import Records, _image_key, _label_key
from simclr_jax.errors import UserError
from support.sources import levels, said, split


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_tfds_is_read_by_index(prepared, cache_bytes, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    train = split("tiny", prepared, cache_bytes=cache_bytes)
    assert (len(train), train.num_classes) == (20, 3)
    values, labels = levels(train, np.arange(20))
    assert sorted(values) == list(range(20))
    assert labels == [value % 3 for value in values]
    again, _ = levels(train, [5, 3, 5])
    assert again == [values[5], values[3], values[5]]
    assert len(split("tiny", prepared, "eval", cache_bytes=cache_bytes)) == 10  # test


def test_tfds_slices(prepared):
    whole, _ = levels(split("tiny", prepared), np.arange(20))
    part = split("tiny", prepared, train_split="train[25%:75%]")
    assert levels(part, np.arange(10))[0] == whole[5:15]
    with pytest.raises(UserError, match=r"config\.data\.eval_split='val': tiny has"):
        split("tiny", prepared, "eval", eval_split="val")
    with pytest.raises(UserError, match=r"config\.data\.train_split='train\[:0\]': there are no"):
        split("tiny", prepared, train_split="train[:0]")


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
            chosen.add((_image_key("set", info, image), _label_key("set", info, label)))
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


class Examples(list):
    """Serialised examples of which a few have labels, between two of 128 that are looked at."""

    def __init__(self, unlabelled, labelled):
        def example(label):
            features = {
                "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"pixels"])),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            return tf.train.Example(
                features=tf.train.Features(feature=features)
            ).SerializeToString()

        half = [example(-1)] * (unlabelled // 2)
        super().__init__(half + [example(2)] * labelled + half)

    def __getitems__(self, indices):
        return [self[index] for index in indices]


@pytest.mark.parametrize(
    ("labelled", "line"), [(20, "lacks the labels of 102"), (0, "no labels: none in 1024 images")]
)
def test_few_labels_in_a_split_are_found(labelled, line, capsys):
    found = Records(
        Examples(4980, labelled),
        paths=[],
        image_key="image",
        label_key="label",
        num_classes=3,
        place="set",
        split="train",
    )
    assert found.num_classes == (3 if labelled else 0)
    assert line in capsys.readouterr().out


def test_a_split_without_labels_is_known_when_it_is_opened(partly, capsys):
    test = split("partly", partly, "eval", eval_split="test")
    assert test.num_classes == 0
    assert "partly/1.0.0: 'test' has no labels" in capsys.readouterr().out


def test_a_split_with_labels_is_preferred_for_evaluation(partly, capsys):
    found = split("partly", partly, "eval")
    assert (found.split, found.num_classes) == ("validation", 3)
    assert (
        "'validation' lacks the labels of 5 in 10 images that were looked at, of 10"
        in capsys.readouterr().out
    )
    assert split("partly", partly, "eval", labelled=False).split == "test"


def test_a_relabelled_copy_has_another_key_of_features(array_records, tmp_path):
    shutil.copytree(array_records, tmp_path / "copy")
    ours, copy = split("tiny", array_records), split("tiny", tmp_path / "copy")
    assert fingerprint(ours) == fingerprint(copy)
    assert cache_key(ours) != cache_key(copy)
    assert cache_key(ours) != cache_key(split("tiny", array_records, labelled=False))


with registered.skip_registration():  # TFDS has its own, which needs ImageNet's archive.

    class Imagenet2012Subset(tfds.core.GeneratorBasedBuilder):
        """The names, splits and features of the published 1 % and 10 % of ImageNet."""

        VERSION = tfds.core.Version("5.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ("1pct", "10pct")]  # noqa: RUF012

        def _info(self):
            features = {
                "image": F.Image(encoding_format="jpeg"),
                "label": F.ClassLabel(num_classes=1000),
                "file_name": F.Text(),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=F.FeaturesDict(features), supervised_keys=("image", "label")
            )

        def _split_generators(self, dl_manager):
            count = {"1pct": 3, "10pct": 6}[self.builder_config.name]
            ranges = {"train": (0, count), "validation": (90, 94)}
            return {name: self._generate_examples(*each) for name, each in ranges.items()}

        def _generate_examples(self, low, high):
            for k in range(low, high):
                image = np.full((8, 8, 3), k, np.uint8)
                yield k, {"image": image, "label": k, "file_name": f"{k}.JPEG"}


def test_the_published_lists_of_imagenet_are_datasets_by_name(tmp_path):
    for name in ("1pct", "10pct"):
        Imagenet2012Subset(config=name, data_dir=tmp_path).download_and_prepare()
    for name, count in (("1pct", 3), ("10pct", 6), ("10pct:5.0.0", 6)):
        train = split(f"imagenet2012_subset/{name}", tmp_path)
        assert (sorted(train.labels()), train.num_classes) == (list(range(count)), 1000)
        test = split(f"imagenet2012_subset/{name}", tmp_path, "eval")
        assert (test.split, sorted(test.labels())) == ("validation", list(range(90, 94)))
    with pytest.raises(
        UserError, match=r"where there is imagenet2012_subset/10pct:5\.0\.0, .*name"
    ):
        split("imagenet2012_subset/2pct", tmp_path)

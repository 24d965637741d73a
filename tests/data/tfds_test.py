"""Datasets that TFDS has prepared, read by index in each of its two formats."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core import registered

from simclr_jax.data.fingerprint import cache_key, fingerprint
from simclr_jax.data.tfds import Records
from simclr_jax.data.tfds_labels import OneLabel
from simclr_jax.errors import UserError
from support.sources import levels, split

F = tfds.features


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
        label=OneLabel("label"),
        num_classes=3,
        class_names=(),
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

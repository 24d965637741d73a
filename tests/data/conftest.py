"""A small dataset, prepared in each of TFDS' two formats."""

import numpy as np
import pytest
import tensorflow_datasets as tfds


class Tiny(tfds.core.GeneratorBasedBuilder):
    """20 training and 10 test images, each of one grey level."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=3),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 20), "test": self._generate_examples(20, 30)}

    def _generate_examples(self, low, high):
        for k in range(low, high):
            yield k, {"image": np.full((4, 4, 3), k, np.uint8), "label": k % 3}


class Partly(Tiny):
    """The same with a label for one image in two of validation, and for none of test."""

    def _split_generators(self, dl_manager):
        ranges = {"train": (0, 20), "test": (20, 30), "validation": (30, 40)}
        return {name: self._generate_examples(*each) for name, each in ranges.items()}

    def _generate_examples(self, low, high):
        for k, example in super()._generate_examples(low, high):
            unlabelled = 20 <= k < 30 or (k > 30 and k % 2)
            yield k, {**example, "label": -1 if unlabelled else k % 3}


def prepare(folder, file_format, builder=Tiny):
    builder(data_dir=folder, file_format=file_format).download_and_prepare()
    return folder


@pytest.fixture(scope="session")
def partly(tmp_path_factory):
    """A TFDS data directory with a dataset of few labels."""
    return prepare(tmp_path_factory.mktemp("partly"), "array_record", Partly)


@pytest.fixture(scope="session")
def tfrecords(tmp_path_factory):
    """A TFDS data directory of TFRecord files."""
    return prepare(tmp_path_factory.mktemp("tfrecord"), "tfrecord")


@pytest.fixture(scope="session")
def array_records(tmp_path_factory):
    """A TFDS data directory of ArrayRecord files."""
    return prepare(tmp_path_factory.mktemp("array_record"), "array_record")


@pytest.fixture(scope="session", params=["tfrecords", "array_records"])
def prepared(request):
    """Either of them."""
    return request.getfixturevalue(request.param)

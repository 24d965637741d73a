"""A TFDS dataset of which an image has several labels, as in PASCAL VOC."""

import numpy as np
import tensorflow_datasets as tfds

CLASSES = ("red", "green", "blue")
COUNTS = {"train": 60, "validation": 24, "test": 40}
_FIRST = {"train": 0, "validation": 100, "test": 200}  # The number of the first image of a split.


def scene(number):
    """(the pixels, the labels (3,): 1 there, 0 absent, -1 there but difficult) of an image.

    A class that is there makes its colour lighter, a difficult one a little.
    """
    rng = np.random.default_rng(number)
    labels = rng.choice([0, 1, -1], 3, p=[0.5, 0.4, 0.1]).astype(np.int8)
    level = 60 + 100 * (labels == 1) + 30 * (labels == -1)
    return np.clip(level + rng.normal(0, 25, (9, 9, 3)), 0, 255).astype(np.uint8), labels


def scenes_of(split):
    """The pixels (n, 9, 9, 3) and the labels (n, 3) of a split, in the order of their numbers."""
    found = [scene(_FIRST[split] + k) for k in range(COUNTS[split])]
    return tuple(np.stack(each) for each in zip(*found, strict=True))


class Scenes(tfds.core.GeneratorBasedBuilder):
    """The dataset 'scenes'."""

    # TFDS looks for the files of a class's package with another package, which need not be there.
    __module__ = "scenes"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        names = tfds.features.ClassLabel(names=CLASSES)
        features = {
            "image": tfds.features.Image(shape=(9, 9, 3), encoding_format="png"),
            "labels": tfds.features.Sequence(names),
            "labels_no_difficult": tfds.features.Sequence(names),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in COUNTS}

    def _generate_examples(self, split):
        for number, (image, labels) in enumerate(zip(*scenes_of(split), strict=True)):
            yield (
                number,
                {
                    "image": image,
                    "labels": np.flatnonzero(labels).tolist(),
                    "labels_no_difficult": np.flatnonzero(labels == 1).tolist(),
                },
            )

"""The keys of every evaluation: the images to read, and the features to compute."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(protocol: str) -> ConfigDict:
    """The defaults of an evaluation.

    Args:
      protocol: The name of the protocol, such as 'linear'.
    """
    c = ConfigDict()
    c.protocol = protocol  # The protocol, a file of simclr_jax/evals, such as 'linear'.
    # The seed of the classifier's initialisation, its order and the draws of labels, below 2³¹.
    c.seed = 0

    # With another data.name, a folder or split of None is the default of that dataset.
    c.data = data = ConfigDict()
    data.name = placeholder(str)  # The dataset, as in a training run; None: that of the run.
    data.dir = placeholder(str)  # The image folder, or the data_dir of TFDS; None: as in the run.
    data.train_split = placeholder(str)  # The training split; None: that of the run.
    data.eval_split = placeholder(str)  # The evaluation split; None: that of the run.
    # The split by which a protocol chooses among values that it tries; None: the dataset's own, or
    # where it has none, a part of the training split.
    data.validation_split = placeholder(str)
    data.image_key = placeholder(str)  # The TFDS feature that is the image; None: as in the run.
    data.label_key = placeholder(str)  # The TFDS feature that is the label; None: as in the run.
    # The number of classes; 0: the images are used without labels; None: the number in the data.
    data.num_classes = placeholder(int)
    # The fraction of each class's training images that are used, above 0 to 1, drawn at random;
    # None: all, whatever the run has seen. Of this key and the next two, one at most is given.
    data.label_fraction = placeholder(float)
    # The number of training images of each class that are used, at least 1; None: all.
    data.labels_per_class = placeholder(int)
    # The file with the names of the training images that are used, one a line; None: all.
    data.label_list = placeholder(str)
    data.label_seed = 0  # The seed of the draw of labels, below 2³¹.
    data.value_range = placeholder(tuple)  # The values of black and white; None: as in the run.
    data.image_size = placeholder(int)  # The side of the images in pixels; None: that of the run.

    c.features = features = ConfigDict()
    # The layer: 'pixels', 'h' (the representation), 'headK' (after layer K of the projection head),
    # 'z' (the embedding) or 'logits' (the outputs of the run's own classifier).
    features.layer = "h"
    features.batch_size = placeholder(int)  # The images of a global batch; None: 64 a device.
    # The side of the central crop of an image over its shorter side, above 0 to 1; for views of at
    # most 32 px images are not cropped.
    features.crop = 0.875
    # The dtype of the features in files: 'float32', or 'float16' of half the size, which keeps 11
    # bits of each number.
    features.dtype = "float32"
    # The number of files of features that are kept with the results, at least 0: the latest used
    # ones. An evaluation has one for each split.
    features.keep = 4
    return c

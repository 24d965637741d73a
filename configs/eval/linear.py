"""Linear evaluation on frozen features: the published settings for CIFAR, without augmentation.

Command:  simclr-eval --config=configs/eval/linear.py --run=RUN
          … --config.linear.lr=0.01,0.1,1 --config.linear.weight_decay=0,1e-4    (several settings)
          … --config.linear.labels_per_class=10 --config.linear.draws=5    (few labels)
Hardware: any; the features are computed once, with all devices, then cached in the run.
Result:   docs/results.md has those of digits and CIFAR-10; ImageNet: not measured yet.
"""

from ml_collections import ConfigDict, FieldReference
from ml_collections.config_dict import placeholder

from simclr_jax.config import default_eval


def get_config() -> ConfigDict:
    """The config of the linear evaluation."""
    c = default_eval.get_config("linear")
    c.linear = linear = ConfigDict()
    # The base learning rate, above 0; the peak is lr · batch_size / 256. Several rates, such as
    # 0.01,0.1,1, are trained side by side, and so are several weight decays; one of each is chosen.
    linear.lr = FieldReference(0.1, field_type=object)
    linear.batch_size = 512  # The number of images of a global batch, at least 1.
    linear.epochs = 100.0  # The length of the training in epochs, above 0.
    # The coefficient of the weight decay, at least 0, or several; ImageNet: 1e-6, with batch_size
    # 4096 and 90 epochs.
    linear.weight_decay = FieldReference(0.0, field_type=object)
    # The fraction of each class's training images by which one of several settings is chosen where
    # the dataset has no validation split, between 0 and 1.
    linear.held_out = 0.1
    # Whether the training images are cropped and flipped anew in each epoch, without a cache.
    linear.augment = False
    # The number of labels of each class for a logistic regression; None: SGD on all labels.
    linear.labels_per_class = placeholder(int)
    linear.draws = 5  # The number of random draws of few labels, at least 1.
    linear.c = 0.1  # The inverse regularisation of the logistic regression, above 0.
    return c

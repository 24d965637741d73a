"""Linear evaluation on frozen features (CIFAR's published setting).

Command:  simclr-eval --config=configs/eval/linear.py --run=RUN
          … --config.linear.labels_per_class=10 --config.linear.draws=5    (few labels)
Hardware: any; the features are computed once, with all devices, then cached in the run.
Result:   the README has those of digits and CIFAR-10; ImageNet: not measured yet.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from simclr_jax.config import default_eval


def get_config() -> ConfigDict:
    c = default_eval.get_config("linear")
    c.linear = linear = ConfigDict()
    linear.lr = 0.1  # peak = lr · batch_size / 256
    linear.batch_size = 512
    linear.epochs = 100.0
    linear.weight_decay = 0.0  # ImageNet: 1e-6, with batch_size 4096 and 90 epochs
    linear.augment = False  # True: crop and flip the training images anew each epoch, uncached
    linear.labels_per_class = placeholder(int)  # fit this many labels instead; None: all
    linear.draws = 5  # random draws of labels
    linear.c = 0.1  # inverse regularisation of the logistic regression on few labels
    return c

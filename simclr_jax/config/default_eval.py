"""Keys of every evaluation: what to read, and which features."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(protocol: str) -> ConfigDict:
    c = ConfigDict()
    c.protocol = protocol
    c.seed = 0  # of the classifier's initialisation, its order and the draws of labels

    # None: as in the run. With another data.name, its splits and dir are that dataset's own.
    c.data = data = ConfigDict()
    data.name = placeholder(str)
    data.dir = placeholder(str)
    data.train_split = placeholder(str)
    data.eval_split = placeholder(str)
    data.image_size = placeholder(int)  # pixels

    c.features = features = ConfigDict()
    features.layer = "h"  # pixels | h | headK (after layer K of the projection head) | z
    features.batch_size = placeholder(int)  # images over all devices; None: 64 a device
    return c

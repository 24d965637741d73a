"""What features know of the transformation of an image: the paper's Table 3.

Command:  simclr-eval --config=configs/eval/transform.py --run=RUN
          … --config.features.layer=z    (the embedding g(h), which should know little)
Hardware: any; the features of transformed images are computed once, with all devices.
Result:   Table 3, h and g(h): colour 99.3 and 97.4, rotation 67.6 and 25.6, noise 99.5 and 59.6,
          Sobel 96.6 and 56.3, where the pretraining had rotation, noise or Sobel as well; ours: not
          measured yet.
"""

from ml_collections import ConfigDict

from simclr_jax.augment.study import NOISE_SIGMA
from simclr_jax.config import default_eval


def get_config() -> ConfigDict:
    """The config of the prediction of transformations."""
    c = default_eval.get_config("transform")
    c.features.keep = 8  # A file for each split and each transformation.
    c.transform = transform = ConfigDict()
    # The transformations: 'colour' (or grey), 'rotation' (by 0°, 90°, 180° or 270°), 'noise' (or
    # not) and 'sobel' (or not).
    transform.of = ("colour", "rotation", "noise", "sobel")
    transform.noise_sigma = NOISE_SIGMA  # The noise's deviation, above 0, for images from 0 to 1.
    transform.hidden = 512  # The width of the network's hidden layer, at least 1.
    transform.lr = 1e-3  # The first learning rate of Adam, above 0; it falls to 0 as a cosine.
    transform.batch_size = 256  # The number of images of a batch, at least 1.
    transform.epochs = 50.0  # The length of the training in epochs, above 0.
    return c

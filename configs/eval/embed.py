"""Features of every image, as .npz and Parquet, to use elsewhere: no labels needed.

Command:  simclr-eval --config=configs/eval/embed.py --run=RUN
          … --config.data.name=folder --config.data.dir=IMAGES
Hardware: any; with all devices, at the speed of the encoder's forward pass.
Result:   RUN/eval/embed/STEP/WHAT/features.npz and features.parquet, with one row per image.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from simclr_jax.config import default_eval


def get_config() -> ConfigDict:
    """The config of an export of features."""
    c = default_eval.get_config("embed")
    c.embed = embed = ConfigDict()
    embed.split = "all"  # The split: 'train', 'eval', or 'all' (both, with no image held out).
    embed.dir = placeholder(str)  # The folder of the files; None: that of the result.
    return c

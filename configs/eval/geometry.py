"""Alignment, uniformity, effective rank and RankMe of frozen features: no labels needed.

Command:  simclr-eval --config=configs/eval/geometry.py --run=RUN
          … --config.features.layer=z    (the embedding, on which the loss works)
Hardware: any; the features are computed once, with all devices, then cached in the run.
Result:   not measured yet.
"""

from ml_collections import ConfigDict

from simclr_jax.config import default_eval


def get_config() -> ConfigDict:
    """The config of the measures of geometry."""
    c = default_eval.get_config("geometry")
    c.geometry = geometry = ConfigDict()
    geometry.split = "eval"  # The split whose images are measured: 'eval' or 'train'.
    return c

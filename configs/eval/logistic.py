"""Logistic regression on frozen features by L-BFGS: the paper's linear evaluation in transfer.

Command:  simclr-eval --config=configs/eval/logistic.py --run=RUN
          … --config.data.name=DATASET    (transfer to another dataset)
Hardware: any; the features are computed once, with all devices, then cached in the run.
Result:   not measured on the paper's datasets yet.
"""

from ml_collections import ConfigDict

from simclr_jax.config import default_eval


def get_config() -> ConfigDict:
    """The config of the evaluation by logistic regression."""
    c = default_eval.get_config("logistic")
    c.logistic = logistic = ConfigDict()
    # The smallest and the largest strength λ, above 0, of the penalty λ/2 · ‖W‖² on the sum of the
    # cross-entropies; scikit-learn's C is 1/λ.
    logistic.l2_range = (1e-6, 1e5)
    logistic.l2_count = 45  # The number of strengths, evenly spaced in their logarithm, at least 1.
    # The fraction of each class's training images by which the strength is chosen where the dataset
    # has no validation split, between 0 and 1.
    logistic.held_out = 0.1
    return c

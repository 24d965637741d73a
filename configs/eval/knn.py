"""Weighted k-nearest-neighbour accuracy of frozen features: nothing to train or tune.

Command:  simclr-eval --config=configs/eval/knn.py --run=RUN
Hardware: any; the features are computed once, with all devices, then cached in the run.
Result:   the README has that of CIFAR-10; ImageNet: not measured yet.
"""

from ml_collections import ConfigDict

from simclr_jax.config import default_eval


def get_config() -> ConfigDict:
    c = default_eval.get_config("knn")
    c.knn = knn = ConfigDict()
    knn.k = 200  # neighbours
    knn.temperature = 0.1  # of their votes' weights
    return c

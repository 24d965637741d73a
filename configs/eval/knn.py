"""Weighted k-nearest-neighbour accuracy of frozen features: nothing to train or tune.

Command:  simclr-eval --config=configs/eval/knn.py --run=RUN
Hardware: any; the features are computed once, with all devices, then cached in the run.
Result:   docs/results.md has that of CIFAR-10; ImageNet: not measured yet.
"""

from ml_collections import ConfigDict

from simclr_jax.config import default_eval


def get_config() -> ConfigDict:
    """The config of the nearest-neighbour evaluation."""
    c = default_eval.get_config("knn")
    c.knn = knn = ConfigDict()
    knn.k = 200  # The number of neighbours that vote, at least 1.
    knn.temperature = 0.1  # The temperature of the votes' weights exp(similarity / τ), above 0.
    return c

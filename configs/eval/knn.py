"""Weighted k-nearest-neighbour accuracy of frozen features: nothing to train or tune.

Command:  simclr-eval --config=configs/eval/knn.py --run=RUN
          … --config.knn.k=200,20,1    (several at once; top-1 is that of the first)
Hardware: any; the features are computed once, with all devices, then cached in the run.
Result:   docs/results.md has that of CIFAR-10; ImageNet: not measured yet.
"""

from ml_collections import ConfigDict, FieldReference

from simclr_jax.config import default_eval


def get_config() -> ConfigDict:
    """The config of the nearest-neighbour evaluation."""
    c = default_eval.get_config("knn")
    c.knn = knn = ConfigDict()
    # The number of neighbours that vote, at least 1, or several numbers, such as 200,20,1: top1 is
    # then that of the first one, and by_k has them all.
    knn.k = FieldReference(200, field_type=object)
    knn.temperature = 0.1  # The temperature of the votes' weights exp(similarity / τ), above 0.
    return c

"""Retrieval by frozen features: mean average precision and recall@k, by cosine similarity.

Command:  simclr-eval --config=configs/eval/retrieval.py --run=RUN
          … --config.retrieval.against=rest    (the evaluation split alone, without training images)
Hardware: any; the features are computed once, with all devices, then cached in the run.
Result:   not measured yet.
"""

from ml_collections import ConfigDict, FieldReference

from simclr_jax.config import default_eval


def get_config() -> ConfigDict:
    """The config of the evaluation by retrieval."""
    c = default_eval.get_config("retrieval")
    c.retrieval = retrieval = ConfigDict()
    # The number of nearest images of which one must be of the query's class, at least 1; or several
    # numbers.
    retrieval.k = FieldReference((1, 5, 10), field_type=object)
    # The images that are ranked for each image of the evaluation split: those of the training split
    # ('train'), or the others of the evaluation split ('rest').
    retrieval.against = "train"
    return c

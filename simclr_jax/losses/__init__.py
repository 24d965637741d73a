"""The losses, and the measures of embeddings and logits that are logged with them."""

from collections.abc import Callable

import jax

from simclr_jax.losses.blocks import choose_blocks, count_blocks, identity
from simclr_jax.losses.decoupled import dcl
from simclr_jax.losses.distillation import distillation
from simclr_jax.losses.logistic import nt_logistic
from simclr_jax.losses.measures import (
    PAIR_IMAGES,
    binary_cross_entropy,
    collapse,
    cross_entropy,
    l2_normalize,
    label_loss,
    label_weights,
    pair_measures,
)
from simclr_jax.losses.ntxent import nt_xent
from simclr_jax.losses.pairs import MINING
from simclr_jax.losses.tiles import choose_columns, count_tiles
from simclr_jax.losses.triplet import margin_triplet

__all__ = [
    "LOSSES",
    "MINING",
    "ONE_VIEW",
    "PAIR_IMAGES",
    "binary_cross_entropy",
    "choose_blocks",
    "choose_columns",
    "collapse",
    "count_blocks",
    "count_tiles",
    "cross_entropy",
    "dcl",
    "distillation",
    "identity",
    "l2_normalize",
    "label_loss",
    "label_weights",
    "margin_triplet",
    "nt_logistic",
    "nt_xent",
    "pair_measures",
]

# The contrastive losses by their names in a config.
LOSSES: dict[str, Callable[..., tuple[jax.Array, dict[str, jax.Array]]]] = {
    "nt_xent": nt_xent,
    "nt_logistic": nt_logistic,
    "margin_triplet": margin_triplet,
    "dcl": dcl,
}
# Those whose negatives are of one view, the anchor's other one, and can be mined.
ONE_VIEW = ("nt_logistic", "margin_triplet")

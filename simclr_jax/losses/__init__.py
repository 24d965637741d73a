"""The losses, and the measures of embeddings and logits that are logged with them."""

from simclr_jax.losses.blocks import count_blocks, identity
from simclr_jax.losses.distillation import distillation
from simclr_jax.losses.measures import (
    binary_cross_entropy,
    collapse,
    cross_entropy,
    l2_normalize,
    label_loss,
    label_weights,
)
from simclr_jax.losses.ntxent import nt_xent

__all__ = [
    "LOSSES",
    "binary_cross_entropy",
    "collapse",
    "count_blocks",
    "cross_entropy",
    "distillation",
    "identity",
    "l2_normalize",
    "label_loss",
    "label_weights",
    "nt_xent",
]

LOSSES = {"nt_xent": nt_xent}  # The contrastive losses by their names in a config.

"""Contrastive losses, and what is measured beside them."""

from simclr_jax.losses.blocks import count_blocks, identity
from simclr_jax.losses.measures import collapse, cross_entropy, l2_normalize
from simclr_jax.losses.ntxent import nt_xent

__all__ = [
    "LOSSES",
    "collapse",
    "count_blocks",
    "cross_entropy",
    "identity",
    "l2_normalize",
    "nt_xent",
]

LOSSES = {"nt_xent": nt_xent}

"""SimCLR's network: encoder, projection head, and the online linear classifier beside them."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from simclr_jax.models.heads import Classifier, ProjectionHead
from simclr_jax.models.resnet import ResNet


class Outputs(NamedTuple):
    """h (N, F) representations; z the head's layers, from h to (N, D); logits (N, C) or None."""

    h: jax.Array
    z: tuple[jax.Array, ...]
    logits: jax.Array | None


class SimCLR(nn.Module):
    """Encoder and heads.

    Attributes:
      depth, width, stem, sk_ratio, se_ratio, running_norm, remat: see `ResNet`.
      head, head_layers, head_dim: see `ProjectionHead`.
      classes: of the online classifier; 0 for unlabelled data: no classifier.
      dtype: of the encoder's convolutions; the heads compute in at least float32.
    """

    depth: int = 50
    width: float = 1.0
    stem: str = "imagenet"
    sk_ratio: float = 0.0
    se_ratio: float = 0.0
    head: str = "nonlinear"
    head_layers: int = 2
    head_dim: int = 128
    classes: int = 0
    dtype: Any = jnp.float32
    running_norm: bool = False
    remat: str = "none"

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """Maps images (N, H, W, 3) in [0, 1] to `Outputs`.

        The classifier sees stop_gradient(h): labels never reach the encoder.
        """
        head_dtype = jnp.promote_types(self.dtype, jnp.float32)
        h = ResNet(
            depth=self.depth,
            width=self.width,
            stem=self.stem,
            sk_ratio=self.sk_ratio,
            se_ratio=self.se_ratio,
            dtype=self.dtype,
            running_norm=self.running_norm,
            remat=self.remat,
            name="encoder",
        )(images, train=train)
        z = ProjectionHead(
            self.head, self.head_layers, self.head_dim, head_dtype, self.running_norm, name="head"
        )(h, train=train)
        logits = None
        if self.classes:
            logits = Classifier(self.classes, dtype=head_dtype, name="classifier")(
                jax.lax.stop_gradient(h)
            )
        return Outputs(h, z, logits)

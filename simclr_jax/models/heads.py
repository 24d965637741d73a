"""What sits on the encoder: the projection head g(h) = z and the linear classifier.

Reference: Chen et al. 2020, section 4.2 (arXiv 2002.05709); layers as in the authors' code.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from simclr_jax.models.resnet import batch_norm

HEADS = ("none", "linear", "nonlinear")


def count_layers(kind: str, layers: int) -> int:
    """The number of layers of a head of that kind; `layers` is that of a nonlinear one."""
    return {"none": 0, "linear": 1, "nonlinear": layers}[kind]


class ProjectionHead(nn.Module):
    """Maps representations h to the space in which the contrastive loss compares them.

    Attributes:
      kind: 'none' (z = h), 'linear' (the last layer alone) or 'nonlinear'.
      layers: number of layers of a nonlinear head, the last included (v1: 2, v2: 3).
      dim: width of z; hidden layers are as wide as h.
      dtype: of the computation.
      running_norm: see `resnet.batch_norm`.
    """

    kind: str = "nonlinear"
    layers: int = 2
    dim: int = 128
    dtype: Any = jnp.float32
    running_norm: bool = False

    @nn.compact
    def __call__(self, h: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        """Projects h (N, F); returns (h, after layer 1, ..., z (N, dim)); z is the last one."""
        layers = count_layers(self.kind, self.layers)
        outputs = [h]
        for layer in range(1, layers + 1):
            last = layer == layers
            x = nn.Dense(
                self.dim if last else h.shape[-1],
                use_bias=False,
                kernel_init=nn.initializers.normal(0.01),
                dtype=self.dtype,
                name=f"dense{layer}",
            )(outputs[-1])
            # The last layer is scaled but not shifted: a shift common to all z carries nothing.
            x = batch_norm(
                train=train,
                running=self.running_norm,
                dtype=self.dtype,
                use_bias=not last,
                name=f"bn{layer}",
            )(x)
            outputs.append(x if last else nn.relu(x))
        return tuple(outputs)


class Classifier(nn.Module):
    """A linear classifier, from features (N, F) to logits (N, classes).

    Attributes:
      classes: The number of classes.
      dtype: The dtype of the computation.
    """

    classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        init = nn.initializers.normal(0.01)
        return nn.Dense(self.classes, kernel_init=init, dtype=self.dtype, name="dense")(h)

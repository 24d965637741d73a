"""The networks on top of the encoder: the projection head g(h) = z and the linear classifier.

Reference: Chen et al. 2020, section 4.2 (arXiv 2002.05709); layers as in the authors' code.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from simclr_jax.errors import chosen
from simclr_jax.models.resnet import BATCH_NORM_MOMENTUM, batch_norm

HEADS = ("none", "linear", "nonlinear")


def count_layers(kind: str, layers: int) -> int:
    """The number of layers of a projection head.

    Args:
      kind: The kind of the head, one of `HEADS`.
      layers: The number of layers of a nonlinear head.

    Raises:
      ArgumentError: There is no such kind.

    >>> [count_layers(kind, 3) for kind in ("none", "linear", "nonlinear")]
    [0, 1, 3]
    """
    return chosen({"none": 0, "linear": 1, "nonlinear": layers}, "head", kind)


def layer_index(layer: str) -> int:
    """The index of a layer among the outputs of `ProjectionHead`.

    Args:
      layer: The layer: 'h', or 'headK' for the output of layer K.

    >>> [layer_index(layer) for layer in ("h", "head1", "head12")]
    [0, 1, 12]
    """
    return 0 if layer == "h" else int(layer.removeprefix("head"))


def layer_number(module: str) -> int:
    """The number of the head's layer that a module belongs to.

    >>> layer_number("dense1"), layer_number("bn12")
    (1, 12)
    """
    return int(module.removeprefix("dense").removeprefix("bn"))


class ProjectionHead(nn.Module):
    """The projection head, from representations h to the embeddings z that the loss compares.

    Attributes:
      kind: The kind of the head: 'none' (z = h), 'linear' (one layer) or 'nonlinear'.
      layers: The number of layers of a nonlinear head, including the last one: 2 in SimCLR, 3 in
        SimCLRv2.
      dim: The width of z. The other layers are as wide as h.
      dtype: The dtype of the computation.
      running_norm: Whether training normalises by the moving averages; see `resnet.batch_norm`.
      norm_momentum: The momentum of the moving averages; see `resnet.batch_norm`.

    Reference: Chen et al. 2020, section 4.2 (arXiv 2002.05709); SimCLRv2 (arXiv 2006.10029).
    """

    kind: str = "nonlinear"
    layers: int = 2
    dim: int = 128
    dtype: Any = jnp.float32
    running_norm: bool = False
    norm_momentum: float = BATCH_NORM_MOMENTUM

    @nn.compact
    def __call__(
        self, h: jax.Array, *, train: bool, until: int | None = None
    ) -> tuple[jax.Array, ...]:
        """Projects representations.

        Args:
          h: The representations (N, F), float.
          train: Whether to normalise by this batch's statistics and update the moving averages.
          until: The last layer to apply; None: all of them.

        Returns:
          h and the output of each layer in order. The last one of all is z (N, dim).
        """
        layers = count_layers(self.kind, self.layers)
        outputs = [h]
        for layer in range(1, (layers if until is None else until) + 1):
            last = layer == layers
            x = nn.Dense(
                self.dim if last else h.shape[-1],
                use_bias=False,
                kernel_init=nn.initializers.normal(0.01),
                dtype=self.dtype,
                name=f"dense{layer}",
            )(outputs[-1])
            # As in the authors' code, the batch norm of the last layer has no bias.
            x = batch_norm(
                train=train,
                running=self.running_norm,
                momentum=self.norm_momentum,
                dtype=self.dtype,
                use_bias=not last,
                name=f"bn{layer}",
            )(x)
            outputs.append(x if last else nn.relu(x))
        return tuple(outputs)


class Classifier(nn.Module):
    """A linear classifier of representations.

    Attributes:
      classes: The number of classes.
      dtype: The dtype of the computation.
    """

    classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        """The logits (N, classes) of representations h (N, F)."""
        init = nn.initializers.normal(0.01)
        return nn.Dense(self.classes, kernel_init=init, dtype=self.dtype, name="dense")(h)

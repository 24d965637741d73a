"""SimCLR's network: the encoder, the projection head and the linear classifier."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from simclr_jax.models.heads import Classifier, ProjectionHead, layer_index, layer_number
from simclr_jax.models.norm import BATCH_NORM_MOMENTUM
from simclr_jax.models.resnet import ResNet, is_frozen


class Outputs(NamedTuple):
    """The outputs of `SimCLR`.

    Attributes:
      h: The representations (N, F).
      z: h and the output of each layer of the projection head. The last one is z (N, D); when a
        network is trained end to end, the last one is the layer that the classifier sits on.
      logits: The logits (N, C) of the classifier, or None without one.
    """

    h: jax.Array
    z: tuple[jax.Array, ...]
    logits: jax.Array | None


class SimCLR(nn.Module):
    """The encoder, the projection head and the linear classifier.

    Attributes:
      depth: The number of layers of the encoder; see `ResNet`.
      width: The multiple of the standard number of filters; see `ResNet`.
      stem: The first layers of the encoder; see `ResNet`.
      sk_ratio: The ratio of selective kernels, or 0 for none.
      se_ratio: The ratio of squeeze-excite, or 0 for none.
      head: The kind of the projection head; see `ProjectionHead`.
      head_layers: The number of layers of a nonlinear projection head.
      head_dim: The width of z.
      classes: The number of classes of the classifier. With 0, for unlabelled data, there is no
        classifier.
      classifier_layer: The layer that the classifier sits on, 'h' or 'headK' for layer K of the
        projection head.
      end_to_end: Whether the classifier's gradient reaches the encoder, as in a supervised
        objective. The layers of the head after the classifier's then take no part in training.
      dtype: The dtype of the encoder's convolutions. The heads compute in at least float32.
      running_norm: Whether training normalises by the moving averages; see `resnet.batch_norm`.
      norm_momentum: The momentum of the moving averages; see `resnet.batch_norm`.
      frozen: The last part of the encoder that is not trained; see `ResNet`.
      remat: The activations that are computed again in the backward pass; see `ResNet`.
      channels: The number of channels C of the images.

    Reference: Chen et al. 2020, section 2.1, and appendix B.6 for the classifier whose gradient
    stops at h (arXiv 2002.05709).
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
    classifier_layer: str = "h"
    end_to_end: bool = False
    dtype: Any = jnp.float32
    running_norm: bool = False
    norm_momentum: float = BATCH_NORM_MOMENTUM
    frozen: str = "none"
    remat: str = "none"
    channels: int = 3

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """Applies the network to images.

        A stop-gradient before the classifier keeps its loss from training the encoder, unless the
        network is trained end to end.

        Args:
          images: The images (N, H, W, C), float in [0, 1].
          train: Whether to normalise by this batch's statistics and update the moving averages.
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
            norm_momentum=self.norm_momentum,
            remat=self.remat,
            frozen=self.frozen,
            name="encoder",
        )(images, train=train)
        layer = layer_index(self.classifier_layer)
        z = ProjectionHead(
            kind=self.head,
            layers=self.head_layers,
            dim=self.head_dim,
            dtype=head_dtype,
            running_norm=self.running_norm,
            norm_momentum=self.norm_momentum,
            name="head",
        )(h, train=train, until=layer if train and self.end_to_end else None)
        logits = None
        if self.classes:
            features = z[layer] if self.end_to_end else jax.lax.stop_gradient(z[layer])
            logits = Classifier(self.classes, dtype=head_dtype, name="classifier")(features)
        return Outputs(h, z, logits)

    def is_frozen(self, path: tuple[str, ...]) -> bool:
        """Whether a parameter or a moving average stays as it is in training.

        Args:
          path: Its path in the tree of parameters or of moving averages.

        >>> model = SimCLR(end_to_end=True, classifier_layer="head1")
        >>> [model.is_frozen(("head", name, "kernel")) for name in ("dense1", "dense2")]
        [False, True]
        """
        if path[0] == "encoder":
            return is_frozen(path[1], self.frozen)
        if path[0] == "head" and self.end_to_end:
            return layer_number(path[1]) > layer_index(self.classifier_layer)
        return False

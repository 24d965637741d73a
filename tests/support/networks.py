"""Small networks to export, of every kind that there is."""

import jax
import jax.numpy as jnp
import numpy as np

from simclr_jax.models.simclr import SimCLR
from simclr_jax.weights import exports

NETWORKS = {
    "basic-small": {"depth": 10, "width": 0.125, "stem": "small", "classes": 3},
    "bottleneck": {"depth": 14, "width": 1.0, "stem": "imagenet", "classes": 5},
    "sk": {"depth": 14, "width": 0.25, "sk_ratio": 0.0625, "head_layers": 3},
    "sk-small": {"depth": 14, "width": 0.125, "sk_ratio": 0.5, "stem": "small"},
    "basic-sk": {"depth": 10, "width": 0.125, "sk_ratio": 0.0625, "head": "linear"},
    "se": {"depth": 14, "width": 0.125, "se_ratio": 0.25, "head": "none"},
    "on-head1": {
        "depth": 10,
        "width": 0.125,
        "stem": "small",
        "classes": 3,
        "classifier_layer": "head1",
    },
    "on-z": {
        "depth": 10,
        "width": 0.125,
        "stem": "small",
        "classes": 3,
        "classifier_layer": "head2",
    },
    "five-channels": {"depth": 10, "width": 0.125, "stem": "small", "classes": 3, "channels": 5},
    "one-channel-sk": {"depth": 10, "width": 0.125, "sk_ratio": 0.0625, "channels": 1},
}


def exported(network, size):
    """A network whose every parameter and statistic matters."""
    model = SimCLR(**network)
    variables = jax.eval_shape(
        lambda: model.init(
            jax.random.key(0), jnp.zeros((1, size, size, model.channels)), train=False
        )
    )
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        name = path[-1].key
        if name == "kernel":
            scale = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return (scale * rng.standard_normal(leaf.shape)).astype(np.float32)
        low, high = {"scale": (0.5, 1.5), "var": (0.5, 2)}.get(name, (-0.2, 0.2))
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    return exports.Exported(model, jax.tree_util.tree_map_with_path(fill, dict(variables)), size)


def images_of(network, count=2):
    size = network.image_size
    shape = count, size, size, network.model.channels
    return np.random.default_rng(1).random(shape, np.float32)

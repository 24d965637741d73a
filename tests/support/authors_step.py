"""The authors' fine-tuning step, written from its rules alone: nothing of simclr_jax is used.

Variables have the authors' names, by structure ("object") and by Keras; see `authors_names`. The
network is a ResNet of basic blocks with the small stem. Images are (N, S, S, 3).
"""

import zlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

HEAD = "_projection_head.linear_layers"


def drawn(name, shape):
    """The array of a variable: a function of its name and shape."""
    rng = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    return {
        "kernel": lambda: rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1])),
        "gamma": lambda: rng.uniform(0.5, 1.5, shape),
        "beta": lambda: 0.2 * rng.standard_normal(shape),
        "bias": lambda: 0.1 * rng.standard_normal(shape),
        "moving_mean": lambda: 0.2 * rng.standard_normal(shape),
        "moving_variance": lambda: rng.uniform(0.5, 2, shape),
    }[name.rpartition(".")[2]]()


class Network:
    """A pass through the network in training, which collects the statistics of the batch."""

    def __init__(self, variables):
        self.variables, self.statistics = variables, {}

    def logits(self, images, selector):
        """The classifier's output, on h (selector 0) or on what layer `selector` of the head says.

        Every layer of the head is applied, those behind the selected one too.
        """
        stem = "resnet_model.initial_conv_relu_max_pool"
        x = self.norm(self.conv(images, f"{stem}.0"), f"{stem}.2.bn", relu=True)
        for group in range(4):
            groups = f"resnet_model.block_groups.{group}.layers"
            for block in range(self.count(groups, "conv2d_bn_layers.0.conv2d.kernel")):
                x = self.block(x, f"{groups}.{block}", stride=2 if group > 0 and block == 0 else 1)
        hidden, layers = [x.mean((1, 2))], self.count(HEAD, "dense.kernel")
        for layer in range(layers):
            x = hidden[-1] @ self.variables[f"{HEAD}.{layer}.dense.kernel"]
            x = self.norm(x, f"{HEAD}.{layer}.bn_relu.bn", relu=layer < layers - 1)
            hidden.append(x)
        dense = "supervised_head.linear_layer.dense"
        kernel, bias = (self.variables[f"{dense}.{leaf}"] for leaf in ("kernel", "bias"))
        return hidden[selector] @ kernel + bias[None]

    def block(self, x, at, *, stride):
        """Two 3x3 convolutions and a shortcut, which is projected in the first block of a group."""
        shortcut, main = x, f"{at}.conv2d_bn_layers"
        if f"{at}.shortcut_layers.0.conv2d.kernel" in self.variables:
            shortcut = self.conv(x, f"{at}.shortcut_layers.0", stride)
            shortcut = self.norm(shortcut, f"{at}.shortcut_layers.1.bn")
        x = self.norm(self.conv(x, f"{main}.0", stride), f"{main}.1.bn", relu=True)
        x = self.norm(self.conv(x, f"{main}.2"), f"{main}.3.bn")
        return jnp.maximum(x + shortcut, 0)

    def conv(self, x, at, stride=1):
        """A convolution that pads (k-1)//2 pixels before, and the rest after."""
        kernel = self.variables[f"{at}.conv2d.kernel"]
        before = (kernel.shape[0] - 1) // 2
        pad = (before, kernel.shape[0] - 1 - before)
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), (pad, pad), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def norm(self, x, at, *, relu=False):
        """Batch norm by this batch's mean and biased variance; without beta there is no shift."""
        axes = tuple(range(x.ndim - 1))
        mean, variance = x.mean(axes), x.var(axes)
        self.statistics |= {f"{at}.moving_mean": mean, f"{at}.moving_variance": variance}
        gamma = self.variables[f"{at}.gamma"]
        beta = self.variables.get(f"{at}.beta", jnp.zeros_like(mean))
        mean, variance, gamma, beta = (
            jnp.expand_dims(v, axes) for v in (mean, variance, gamma, beta)
        )
        x = (x - mean) / jnp.sqrt(variance + 1e-5) * gamma + beta
        return jnp.maximum(x, 0) if relu else x

    def count(self, at, end):
        """The number of the layers at a place, which are numbered from 0."""
        return sum(name.startswith(f"{at}.") and name.endswith(end) for name in self.variables)


def steps(variables, keras, batches, rates, *, decay, selector):
    """The variables, the penalty, the whole loss and the gradients' norm after each step.

    Args:
      variables: The first arrays by the structural name, parameters and moving averages.
      keras: Keras' names of the same variables in the same order, which the rules are written for.
      batches: The images (N, S, S, 3) and the labels (N,) of each step.
      rates: The learning rate of each step.
      decay: The weight decay.
      selector: The layer of the head that the classifier sits on; 0: h.
    """
    keras_name = dict(zip(variables, keras, strict=True))

    def penalised(name):
        return "head_supervised" in keras_name[name] and "bias" not in keras_name[name]

    def adapted(name):
        excluded = ("batch_normalization", "bias", "head_supervised")
        return not any(part in keras_name[name] for part in excluded)

    @partial(jax.value_and_grad, has_aux=True)
    def loss(parameters, averages, images, labels):
        network = Network({**parameters, **averages})
        logits = network.logits(images, selector)
        logits = logits - logits.max(axis=1, keepdims=True)
        chosen = logits[jnp.arange(len(labels)), labels]
        cross_entropy = (jnp.log(jnp.exp(logits).sum(axis=1)) - chosen).mean()
        penalty = sum(0.5 * decay * (w**2).sum() for n, w in parameters.items() if penalised(n))
        return cross_entropy + penalty, (penalty, network.statistics)

    loss, velocity = jax.jit(loss), dict.fromkeys(variables, 0.0)
    for (images, labels), rate in zip(batches, rates, strict=True):
        averages = {name: x for name, x in variables.items() if "moving" in name}
        parameters = {name: x for name, x in variables.items() if "moving" not in name}
        (total, (penalty, statistics)), gradients = loss(parameters, averages, images, labels)
        variables = dict(variables)
        for name, value in statistics.items():
            variables[name] = 0.9 * variables[name] + 0.1 * np.asarray(value)
        # TensorFlow has no gradient for what the loss does not depend on, and leaves it alone.
        unused = [f"{HEAD}.{layer}." for layer in range(selector, 9)]
        used = {n: np.asarray(g) for n, g in gradients.items() if not n.startswith(tuple(unused))}
        for name, g in used.items():
            w, trust = variables[name], 1.0
            if adapted(name):
                g = g + decay * w
                norms = np.linalg.norm(w), np.linalg.norm(g)
                trust = 0.001 * norms[0] / norms[1] if min(norms) > 0 else 1.0
            velocity[name] = 0.9 * velocity[name] + rate * trust * g
            variables[name] = w - velocity[name]
        norm = np.sqrt(sum((g**2).sum() for g in used.values()))
        yield variables, float(penalty), float(total), float(norm)

"""Logistic regressions on frozen features, of many strengths of L2 at once.

For each strength λ, with weights W (F, C), bias b (C,) and N labelled rows, it minimises

    J(W, b) = 1/N · Σₙ −log softmax(xₙ W + b)[yₙ] + λ/(2N) · ‖W‖²

which is the sum of the cross-entropies plus λ/2 · ‖W‖², divided by N. The bias is not penalised.
scikit-learn's LogisticRegression(C=1/λ) has the same minimum; of two classes, of which it penalises
the difference of the weights, LogisticRegression(C=2/λ) has it.

With several labels an image, each class has a regression of its own against the rest, and all are
fitted at once: the cross-entropy of a row is the sum of the binary ones of its classes that count,
−log σ(±(xₙ W + b)[c]) with + where the image is of the class c. For each class it is the minimum of
scikit-learn's binary regression with C=1/λ, on the rows in which the class counts.

All strengths share each pass over the features: a pass computes the loss and the gradient of every
one at its own point. L-BFGS (optax) gives the direction, and each strength has a backtracking line
search of its own: it tries the next step, or a shorter one, in the next pass. So the features may
lie on the devices or be read anew in each pass, and no strength waits for another.

The features' directions have very different variances, which would take L-BFGS hundreds of passes.
It therefore works on V = H^(1/2) W, where H is the Hessian of J at W = 0: the covariance of the
features divided by C (with several labels by 4), plus λ/N. The minimum stays the same.

A strength has converged, and stays as it is, when the next step of L-BFGS promises to lower J by
less than `TOLERANCE`.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from simclr_jax import mesh as meshes
from simclr_jax.errors import DivergedError
from simclr_jax.evals import sums
from simclr_jax.evals.passes import Rows

TOLERANCE = 3e-7  # The expected decrease of J at which a strength has converged.
PASSES = 1000  # The largest number of passes over the features.
MEMORY = 10  # The number of updates that L-BFGS remembers.
ROTATED = 8192  # The width F up to which the features' covariance is computed, not their variance.
STATE_BYTES = 2**32  # The bytes of the state of all strengths that are fitted at a time.
DECREASE = 1e-4  # The part of the expected decrease with which the line search is content.
ROUNDING = 1e-6  # The relative error of J, by which it may grow in a step.
SHORTEST = 1e-6  # The step, as a part of L-BFGS's, below which the line search gives up.

_lbfgs = optax.scale_by_lbfgs(memory_size=MEMORY)


class Fit(NamedTuple):
    """Regressions of several strengths.

    Attributes:
      kernel: The weights W (K, F, C) float32.
      bias: The bias b (K, C) float32.
      passes: The number of passes over the features.
      converged: Whether each has converged, bools (K,).
    """

    kernel: np.ndarray
    bias: np.ndarray
    passes: int
    converged: np.ndarray


class Lane(NamedTuple):
    """The state of one strength; with a leading axis K, that of all.

    Attributes:
      params: The best point so far: V (F, C), and the bias in its own coordinates (C,).
      value: J there.
      gradient: The gradient there.
      direction: The step that L-BFGS proposes from there.
      step: The part of it that is tried next; 0 where nothing is.
      promise: The decrease that is expected of the whole step, half the size of
        gradient · direction.
      memory: The state of L-BFGS.
    """

    params: Any
    value: jax.Array
    gradient: Any
    direction: Any
    step: jax.Array
    promise: jax.Array
    memory: Any


class Coordinates(NamedTuple):
    """What the Hessian of the cross-entropy at W = 0 is made of.

    Attributes:
      mean: The mean of the features (F,).
      basis: Their principal directions (F, F) in columns; None: each feature for itself.
      variance: The variance in these directions (F,), above 0.
    """

    mean: jax.Array
    basis: jax.Array | None
    variance: jax.Array


class Regressions:
    """Logistic regressions on the same features, all in the coordinates that these features give.

    Args:
      rows: The features. All of them give the coordinates, whether they are fitted or not.
      classes: The number C of classes.
    """

    def __init__(self, rows: Rows, classes: int):
        self._rows, self._classes = rows, classes
        self._compiled = compiled = partial(jax.jit, out_shardings=meshes.replicated(rows.mesh))
        several = rows.labels.ndim == 2
        self._loss = compiled(sums.binary_losses if several else sums.losses)
        self._hits = compiled(sums.binary_hits if several else sums.hits)
        divisor = 4 if several else classes
        self._weights = compiled(partial(_weights, divisor=divisor))
        self._advance = compiled(partial(_advance, divisor=divisor))
        ones = np.ones(len(rows.labels), np.float32)
        count = np.float32(rows.labelled.sum())
        mean = rows.total(compiled(sums.total), ones) / count
        if rows.dim <= ROTATED:
            products = rows.total(compiled(sums.products), ones, mean)
            variance, basis = compiled(_principal)(products, count)
        else:
            variance, basis = rows.total(compiled(sums.squares), ones, mean) / count, None
        self._coordinates = Coordinates(mean, basis, compiled(_above_rounding)(variance))

    def fit(self, weights: np.ndarray, l2: np.ndarray) -> Fit:
        """Fits the regressions of some strengths.

        Args:
          weights: The weight of each row (n,), 1 or 0.
          l2: The strengths λ (K,), above 0.

        Raises:
          DivergedError: A loss is not finite.
        """
        size = max(1, STATE_BYTES // (4 * self._rows.dim * self._classes * (2 * MEMORY + 8)))
        groups = np.array_split(l2, -(-len(l2) // size))
        found = [self._fit(weights, group) for group in groups]
        return Fit(
            kernel=np.concatenate([each.kernel for each in found]),
            bias=np.concatenate([each.bias for each in found]),
            passes=sum(each.passes for each in found),
            converged=np.concatenate([each.converged for each in found]),
        )

    def _fit(self, weights: np.ndarray, l2: np.ndarray) -> Fit:
        count = np.float32(weights[self._rows.labelled].sum())
        penalty = np.float32(l2 / count)
        shape = len(l2), self._rows.dim, self._classes
        lanes, passes = self._compiled(partial(_start, *shape))(), 0
        while passes < PASSES:
            passes += 1
            kernel, bias = self._weights(lanes, penalty, self._coordinates)
            totals = self._rows.total(self._loss, weights, kernel, bias, self._coordinates.mean)
            lanes = self._advance(lanes, kernel, totals, count, penalty, self._coordinates)
            if not np.any(np.asarray(lanes.step)):
                break
        promise = np.asarray(lanes.promise)
        if not np.isfinite(promise).all():
            raise DivergedError(
                f"the logistic regression of L2 {l2[~np.isfinite(promise)][0]:g} has no finite loss"
            )
        best = self._weights(lanes._replace(step=0 * lanes.step), penalty, self._coordinates)
        kernel, bias = map(np.asarray, best)
        mean = np.asarray(self._coordinates.mean, np.float64)
        bias = (bias - np.einsum("f,kfc->kc", mean, kernel)).astype(np.float32)
        return Fit(kernel, bias, passes, promise <= TOLERANCE)

    def right(self, weights: np.ndarray, fit: Fit) -> tuple[np.ndarray, np.ndarray]:
        """How many rows of each class are classified right (K, C), and the mean loss (K,).

        With several labels an image, it is the rows of which each class is told right, there or
        absent, among those in which it counts.

        Args:
          weights: The weight of each row (n,), 1 or 0.
          fit: The regressions. The loss is the cross-entropy, without the penalty.
        """
        right, loss = self._rows.total(self._hits, weights, fit.kernel, fit.bias)
        return np.asarray(right), np.asarray(loss) / weights[self._rows.labelled].sum()


def _start(strengths: int, dim: int, classes: int) -> Lane:
    """The state of all strengths before the first pass, at W = 0."""
    zeros = jnp.zeros((strengths, dim, classes)), jnp.zeros((strengths, classes))
    unknown = jnp.full(strengths, jnp.inf)
    memory = jax.vmap(_lbfgs.init)(zeros)
    return Lane(zeros, unknown, zeros, zeros, jnp.ones(strengths), unknown, memory)


def _principal(products: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The variances (F,) in the principal directions of features, and these (F, F) in columns."""
    return jnp.linalg.eigh(products / count)


def _above_rounding(variance: jax.Array) -> jax.Array:
    """Variances (F,), where those that rounding alone can give are replaced by the least other."""
    rounding = len(variance) * jnp.finfo(variance.dtype).eps * jnp.max(variance)
    return jnp.maximum(variance, rounding)


def _scales(penalty: jax.Array, at: Coordinates, divisor: int) -> tuple[jax.Array, jax.Array]:
    """The factors from V to W (K, F, 1) and of the bias (1, 1): the Hessian to the power of -½."""
    curvature = at.variance[None] / divisor + penalty[:, None]
    return jax.lax.rsqrt(curvature)[..., None], jnp.full((1, 1), jnp.sqrt(divisor))


def _weights(
    lanes: Lane, penalty: jax.Array, at: Coordinates, *, divisor: int
) -> tuple[jax.Array, jax.Array]:
    """The weights W (K, F, C) and the bias b (K, C) that are tried next, for centred features.

    Args:
      lanes: The state of all strengths.
      penalty: λ/N of each (K,).
      at: The coordinates.
      divisor: What the covariance is divided by in the Hessian: C, or 4 with several labels.
    """

    def tried(params: jax.Array, direction: jax.Array) -> jax.Array:
        return params + lanes.step.reshape(-1, *[1] * (params.ndim - 1)) * direction

    kernel, bias = jax.tree.map(tried, lanes.params, lanes.direction)
    kernel_scale, bias_scale = _scales(penalty, at, divisor)
    kernel = kernel_scale * kernel
    if at.basis is not None:
        kernel = sums.product("fg,kgc->kfc", at.basis, kernel)
    return kernel, bias_scale * bias


def _advance(
    lanes: Lane,
    kernel: jax.Array,
    totals: Any,
    count: jax.Array,
    penalty: jax.Array,
    at: Coordinates,
    *,
    divisor: int,
) -> Lane:
    """The state of all strengths after a pass over the features.

    Args:
      lanes: The state before.
      kernel: The weights W (K, F, C) that were tried.
      totals: The totals there, as `sums.losses` has them.
      count: The number N of rows.
      penalty: λ/N of each strength (K,).
      at: The coordinates.
      divisor: See `_weights`.
    """
    loss, (kernel_sum, bias_sum) = totals
    value = loss / count + penalty / 2 * (kernel**2).sum(axis=(1, 2))
    gradient = kernel_sum / count + penalty[:, None, None] * kernel
    if at.basis is not None:
        gradient = sums.product("fg,kfc->kgc", at.basis, gradient)
    kernel_scale, bias_scale = _scales(penalty, at, divisor)
    gradients = kernel_scale * gradient, bias_scale * bias_sum / count
    return jax.vmap(_step)(lanes, value, gradients)


def _step(lane: Lane, value: jax.Array, gradient: Any) -> Lane:
    """The state of a strength whose J and gradient at the point that it tried are known.

    The point is taken if J has decreased enough (Armijo's condition; J is convex, so L-BFGS needs
    no condition on its curvature). Otherwise a shorter step is tried: to the minimum of the
    parabola through what is known, but a tenth of the length at least, and a half at most.
    """
    slope = lane.step * optax.tree.vdot(lane.gradient, lane.direction)
    enough = value <= lane.value + DECREASE * slope + ROUNDING * jnp.abs(value)
    params = optax.tree.add_scale(lane.params, lane.step, lane.direction)
    update, memory = _lbfgs.update(gradient, lane.memory, params)
    promise = jnp.abs(optax.tree.vdot(gradient, update)) / 2
    direction = optax.tree.scale(-1, update)
    step = jnp.where(promise > TOLERANCE, 1.0, 0.0)
    taken = Lane(params, value, gradient, direction, step, promise, memory)
    shorter = jnp.fmax(0.1, jnp.fmin(0.5, -slope / (2 * (value - lane.value - slope))))
    left = jnp.where(lane.step * shorter >= SHORTEST, lane.step * shorter, 0.0)
    new = optax.tree.where(enough, taken, lane._replace(step=left))
    return optax.tree.where(lane.step > 0, new, lane)

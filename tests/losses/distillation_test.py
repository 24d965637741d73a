"""The loss of distillation, against its definition in float64 and numerical derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from simclr_jax.losses import distillation


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_loss_is_the_cross_entropy_of_both_softmaxes_times_the_temperature_squared(
    rng, temperature
):
    with jax.enable_x64(True):
        logits, taught = rng.normal(size=(2, 7, 5))
        p = scipy.special.softmax(taught / temperature, axis=1)
        log_q = scipy.special.log_softmax(logits / temperature, axis=1)
        expected = temperature**2 * -(p * log_q).sum(axis=1).mean()
        loss, agreement = distillation(logits, taught, temperature=temperature)
        np.testing.assert_allclose(loss, expected, rtol=1e-12)
        np.testing.assert_allclose(agreement, np.mean(logits.argmax(1) == taught.argmax(1)), 1e-6)


def test_the_gradient_vanishes_where_the_student_says_what_the_teacher_says(rng):
    """Logits that differ by a constant are the same prediction; none reaches the teacher."""
    with jax.enable_x64(True):
        taught = jnp.asarray(rng.normal(size=(4, 3)))

        def loss(logits, taught):
            return distillation(logits, taught, temperature=2.0)[0]

        gradient, to_teacher = jax.grad(loss, argnums=(0, 1))(taught + 1.0, taught)
        np.testing.assert_allclose(gradient, 0, atol=1e-15)
        np.testing.assert_array_equal(to_teacher, 0)
        # τ·(softmax(logits/τ) - softmax(taught/τ))/N elsewhere.
        logits = jnp.asarray(rng.normal(size=(4, 3)))
        q, p = (scipy.special.softmax(np.asarray(x) / 2.0, axis=1) for x in (logits, taught))
        np.testing.assert_allclose(jax.grad(loss)(logits, taught), 2.0 * (q - p) / 4, rtol=1e-12)


def test_logits_of_other_classes_are_refused():
    with pytest.raises(AssertionError):
        distillation(jnp.zeros((4, 3)), jnp.zeros((4, 5)), temperature=1.0)

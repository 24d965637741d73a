"""What the device does to images, against the host and against NumPy."""

import jax.numpy as jnp
import numpy as np

from simclr_jax.augment import host
from simclr_jax.augment.device import gaussian_blur, views_of


def test_views_travel_side_by_side_and_uint8_is_scaled():
    image = np.arange(2 * 2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 2, 4, 4, 3)
    views = views_of({"image": jnp.asarray(image)}, blur_radius=0)
    np.testing.assert_allclose(views, image.reshape(4, 4, 4, 3) / 255.0, rtol=1e-6)


def test_blur_in_the_step_equals_blur_on_the_host(rng):
    images = rng.uniform(size=(4, 32, 32, 3)).astype(np.float32)
    sigma = np.array([0.0, 0.1, 0.7, 2.0], np.float32)
    in_step = gaussian_blur(jnp.asarray(images), jnp.asarray(sigma), radius=1)
    on_host = [host.gaussian_blur(image, s).numpy() for image, s in zip(images, sigma, strict=True)]
    np.testing.assert_allclose(in_step, np.stack(on_host), atol=1e-6)
    np.testing.assert_array_equal(in_step[0], images[0])


def test_blur_equals_a_direct_convolution(rng):
    image = rng.uniform(size=(20, 20, 3))
    sigma, radius = 1.3, 3
    taps = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    padded = np.pad(image, ((radius, radius), (radius, radius), (0, 0)))
    expected = sum(
        taps[i] * taps[j] * padded[i : i + 20, j : j + 20]
        for i in range(2 * radius + 1)
        for j in range(2 * radius + 1)
    )
    blurred = gaussian_blur(jnp.asarray(image[None]), jnp.asarray([sigma]), radius=radius)
    np.testing.assert_allclose(blurred[0], expected, atol=1e-5)

"""Features whose classes are known."""

import numpy as np
import pytest

from simclr_jax.evals.features import Features


@pytest.fixture
def blobs(rng):
    """(train, test): five well separated classes in 12 dimensions."""
    centres = 1.2 * rng.normal(size=(5, 12))

    def draw(n):
        labels = rng.integers(0, 5, n).astype(np.int32)
        x = centres[labels] + rng.normal(size=(n, 12))
        return Features(x.astype(np.float32), labels)

    return draw(300), draw(101)

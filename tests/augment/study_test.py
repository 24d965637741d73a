"""The laws of the study's operations, each against SciPy's distribution of the same name."""

import numpy as np
import pytest
from scipy import stats

from simclr_jax.augment import study
from simclr_jax.augment.keys import fold
from support.views import some_keys


def drawn(law, count=2000):
    """What a law draws for the seeds of many examples."""
    return law(fold(some_keys(count, seed=3), 9))


def test_cutouts_centres_are_uniform_over_the_pixels():
    centres = drawn(lambda seeds: study.cutout_centres(seeds, 10), 4000)
    for axis in (0, 1):
        assert stats.chisquare(np.bincount(centres[:, axis], minlength=10)).pvalue > 1e-3
    assert abs(np.corrcoef(centres.T)[0, 1]) < 0.05
    assert centres.dtype == np.int32


def test_the_four_turns_are_equally_frequent():
    assert stats.chisquare(np.bincount(drawn(study.quarter_turns), minlength=4)).pvalue > 1e-3


@pytest.mark.parametrize(
    "law", [study.sobel, lambda seeds: study.noise(seeds, seeds).applied], ids=["sobel", "noise"]
)
def test_half_of_the_views_are_changed(law):
    assert stats.binomtest(int(drawn(law).sum()), 2000, 0.5).pvalue > 1e-3


@pytest.mark.parametrize("law", [study.equalize, study.solarize])
def test_a_fifth_of_the_views_is_changed(law):
    assert stats.binomtest(int(drawn(law).sum()), 2000, 0.2).pvalue > 1e-3


def test_motion_has_any_direction():
    applied, angle = drawn(study.motion)
    assert stats.binomtest(int(applied.sum()), 2000, 0.5).pvalue > 1e-3
    assert stats.kstest(angle[applied], stats.uniform(0, np.pi).cdf).pvalue > 1e-3


def test_noise_keeps_the_seed_of_its_own():
    applied, seed = study.noise(np.array([[1, 2]]), np.array([[3, 4]]))
    assert (applied.dtype, applied.shape) == (bool, (1,))
    assert seed.tolist() == [[3, 4]]

"""The laws of the policies, against the tables that they are drawn from."""

import numpy as np
import pytest
from scipy import stats

from simclr_jax.augment import policies
from simclr_jax.augment.keys import fold
from support.views import some_keys

NAMES = list(policies.OPERATIONS)


def drawn(law, count=4000):
    """The operations (count, 2) and the magnitudes (count, 2) of many examples."""
    return law(fold(some_keys(count), 10))


def test_autoaugment_draws_its_pairs_with_their_probabilities():
    found = drawn(policies.autoaugment)
    counts = {}
    for operations, magnitudes in zip(*found, strict=True):
        steps = tuple(
            (NAMES[number], round(float(abs(size)), 3) if number else None)
            for number, size in zip(operations, magnitudes, strict=True)
        )
        counts[steps] = counts.get(steps, 0) + 1
    expected = {}
    for first, second in policies.PAIRS:
        outcomes = []
        for name, probability, level in (first, second):
            size = round(policies.magnitude(name, level), 3)
            outcomes.append([((name, size), probability), (("identity", None), 1 - probability)])
        for a, p in outcomes[0]:
            for b, q in outcomes[1]:
                expected[a, b] = expected.get((a, b), 0) + p * q / len(policies.PAIRS)
    expected = {steps: share for steps, share in expected.items() if share > 1e-9}
    assert counts.keys() <= expected.keys()
    shares = 4000 * np.array([*expected.values()])
    seen = np.array([counts.get(steps, 0) for steps in expected])
    assert stats.chisquare(seen, shares).pvalue > 1e-3


def test_randaugment_draws_two_of_fourteen_operations():
    operations, magnitudes = drawn(policies.randaugment)
    without = [number for number, name in enumerate(NAMES) if name != "invert"]
    counts = np.bincount(operations.ravel(), minlength=len(NAMES))
    assert counts[NAMES.index("invert")] == 0
    assert stats.chisquare(counts[without]).pvalue > 1e-3
    pairs = np.histogram2d(*operations.T, bins=[range(16)] * 2)[0][np.ix_(without, without)]
    assert stats.chi2_contingency(pairs).pvalue > 1e-3  # The second does not depend on the first.
    for number, name in enumerate(NAMES):
        sizes = magnitudes[operations == number]
        expected = policies.magnitude(name, 9)
        np.testing.assert_allclose(np.abs(sizes), expected, rtol=1e-6)
        if policies.OPERATIONS[name].signed:
            assert stats.binomtest(int((sizes < 0).sum()), len(sizes), 0.5).pvalue > 1e-3
        else:
            assert (sizes >= 0).all()


def test_levels_are_those_of_the_papers_table():
    of = policies.magnitude
    found = [of("rotate", 10), of("shear_x", 10), of("solarize", 5), of("posterize", 0)]
    assert found == pytest.approx([30, 0.3, 128, 4])
    assert [of("color", level) for level in (0, 5, 10)] == pytest.approx([0.1, 1.0, 1.9])


@pytest.mark.parametrize("law", [policies.autoaugment, policies.randaugment])
def test_a_draw_is_two_operations(law):
    many = drawn(law, 4)
    assert (many.operation.shape, many.magnitude.shape) == ((4, 2), (4, 2))
    assert (many.operation.dtype, many.magnitude.dtype) == (np.int32, np.float32)

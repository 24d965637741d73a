"""Index arithmetic: pinned, exact, and the same however the work is divided."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simclr_jax.data.order import Order, epoch_order, permutation


def test_permutation_is_pinned():
    """A change here reorders everybody's runs."""
    assert permutation(10, seed=0, stream=0).tolist() == GOLDEN_0_0
    assert permutation(10, seed=7, stream=3).tolist() == GOLDEN_7_3


GOLDEN_0_0 = [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
GOLDEN_7_3 = [2, 5, 9, 7, 3, 0, 6, 8, 4, 1]


def test_neighbouring_epochs_and_seeds_are_uncorrelated():
    orders = [permutation(5000, seed=s, stream=e) for s, e in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    correlation = np.corrcoef(orders) - np.eye(4)
    assert np.abs(correlation).max() < 0.06


@pytest.mark.parametrize("n", [1, 7, 100, 1001])
@pytest.mark.parametrize(("block", "window"), [(1, 1), (4, 2), (16, 16), (64, 3)])
def test_an_epoch_holds_every_example_once(n, block, window):
    order = epoch_order(n, seed=3, epoch=5, block=block, window=window)
    assert sorted(order) == list(range(n))


def test_blocks_stay_within_their_window():
    order = epoch_order(1024, seed=0, epoch=0, block=16, window=4)
    for start in range(0, 1024, 64):
        blocks = np.unique(order[start : start + 64] // 16)
        assert len(blocks) == 4
    assert (np.diff(order[:64]) != 1).mean() > 0.9  # and the records inside are shuffled


@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (7, 7), (13, 5), (100, 32)])
def test_batches_are_slices_of_the_endless_sequence(n, batch_size):
    steps = [Order(n, batch_size, seed=1).batch(step) for step in range(3 * n)]
    index = np.concatenate([index for index, _ in steps])
    epoch = np.concatenate([epoch for _, epoch in steps])
    for number in range(batch_size):
        assert sorted(index[epoch == number]) == list(range(n))
        np.testing.assert_array_equal(index[epoch == number], permutation(n, seed=1, stream=number))


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_rows_concatenate_to_the_global_batch(processes):
    order = Order(50, 16, seed=2)
    whole = order.batch(9)
    shares = [order.batch(9, rows) for rows in np.split(np.arange(16), processes)]
    for k in range(2):
        np.testing.assert_array_equal(np.concatenate([share[k] for share in shares]), whole[k])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 400),
    per_process=st.integers(1, 32),
    processes=st.integers(1, 8),
    seed=st.integers(0, 2**31 - 1),
    first=st.integers(0, 50),
    block=st.integers(1, 40),
    window=st.integers(1, 5),
)
def test_any_epoch_has_each_example_once(n, per_process, processes, seed, first, block, window):
    """Of any length, batch and number of processes, from any step on: a whole epoch's rows."""
    batch = per_process * processes
    order = Order(n, batch, seed, block=block, window=window)
    start = first * n // batch
    steps = range(start, start + 2 + -(-2 * n // batch))
    found = []
    for step in steps:
        for process in range(processes):
            own = np.arange(process, batch, processes)
            index, epoch = order.batch(step, own)
            found += [(step * batch + r, *pair) for r, *pair in zip(own, epoch, index, strict=True)]
    found.sort()
    assert [position for position, _, _ in found] == [*range(start * batch, steps.stop * batch)]
    assert all(position // n == epoch for position, epoch, _ in found)
    whole = -(-start * batch // n)  # the first epoch that begins among these steps
    for number in (whole, whole + 1):
        shown = [index for _, epoch, index in found if epoch == number]
        if len(shown) == n:
            assert sorted(shown) == list(range(n))
    assert sum(epoch == whole for _, epoch, _ in found) == n

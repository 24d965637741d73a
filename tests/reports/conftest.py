"""A run as its folder tells it."""

import dataclasses

import pytest

from simclr_jax.reports import runs


@pytest.fixture
def run(unevaluated):
    """The shared run, in a copy that a test may change."""
    (found,) = runs.read([str(unevaluated)])
    return dataclasses.replace(found, rows=[dict(row) for row in found.rows])

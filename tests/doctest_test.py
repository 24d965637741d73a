"""The examples in docstrings give what they say."""

import doctest
import importlib
import importlib.util
import pkgutil

import pytest

import simclr_jax

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(simclr_jax.__path__, "simclr_jax.")
    if not module.ispkg
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name):
    if name.endswith("simclr_torch") and importlib.util.find_spec("torch") is None:
        pytest.skip("needs PyTorch")
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    names = [name for name in MODULES if not name.endswith("simclr_torch")]
    found = [finder.find(importlib.import_module(name)) for name in names]
    assert sum(bool(test.examples) for tests in found for test in tests) >= 30

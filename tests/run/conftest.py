"""What a run says of itself."""

import logging

import pytest


@pytest.fixture
def warnings(monkeypatch, caplog):
    """The warnings of the package so far."""
    # A command that has run in this process keeps them from the root logger, where caplog listens.
    monkeypatch.setattr(logging.getLogger("simclr_jax"), "propagate", True)
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]
